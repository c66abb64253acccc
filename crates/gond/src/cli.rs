//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Flags};
use crate::{admin, roles, standalone, telemetry};

/// What a configuration that cannot be used ends with (EX_CONFIG of sysexits.h): trying again does not help.
const BAD_CONFIGURATION: u8 = 78;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration, 130 ended by a second \
signal.";

/// The code that an error ends the process with.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ConfigError>() {
        Some(_) => ExitCode::from(BAD_CONFIGURATION),
        None => ExitCode::FAILURE,
    }
}

/// Gon Cloud Platform: the daemon.
#[derive(Debug, Parser)]
#[command(name = "gond", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is and what the command line says about it.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Configuration file [default: /etc/gon/gon.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything of this machine is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Common {
    fn load(&self, listen: Option<SocketAddr>) -> anyhow::Result<Config> {
        let flags = Flags { file: self.config.clone(), data_dir: self.data_dir.clone(), listen };
        Ok(Config::load(&flags)?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every role in this process, with a private PostgreSQL and, where none runs, a private Open vSwitch.
    Standalone(Serve),
    /// Runs the REST API and the web console.
    ApiServer(Serve),
    /// Runs the controller that turns VPC state into each node's network document.
    NetworkController(Role),
    /// Runs the controller that places instances and drives their lives.
    InstanceManager(Role),
    /// Runs the agent that drives QEMU on this node.
    HypervisorAgent(Role),
    /// Ends instances of this node that are recovered elsewhere, when its hypervisor agent should have and has not.
    FenceKeeper(Role),
    /// Runs the agent that drives Open vSwitch on this node.
    NetworkAgent(Role),
    /// Runs the agent that looks after Docker on this node.
    ContainerAgent(Role),
    /// Runs the agent that owns the image store of this node.
    StorageAgent(Role),
    /// Examines this server: what is in the way, and which command mends it.
    Doctor {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: admin::doctor::DoctorArgs,
    },
    /// Makes this server a node of the site that the token is of.
    Join {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: admin::join::JoinArgs,
    },
    /// Makes machine images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Operator's verbs.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Checks the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    common: Common,
    /// Where the API and the console listen [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct Role {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Makes the images that are missing or were made by another recipe.
    Build {
        #[command(flatten)]
        common: Common,
        /// The image store [default: images in the data directory].
        #[arg(long, value_name = "DIR")]
        images_dir: Option<PathBuf>,
        /// Which: gon-linux, debian-12, or all.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Makes this server the first one of a site: database, brokers, certificates, services. Can be repeated.
    Init(admin::init::InitArgs),
    /// Makes a token with which another server joins.
    JoinToken {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: admin::join::JoinTokenArgs,
    },
    /// Moves this server's network card under Open vSwitch; put back unless it is confirmed.
    Uplink {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: admin::uplink::UplinkCommand,
    },
    /// Renews the certificates of RabbitMQ and etcd, and tells etcd which ones are revoked; a timer does it.
    Certificates(Role),
    /// Takes back what 'gond admin init' or 'gond join' did to this server.
    Uninstall {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: admin::init::uninstall::UninstallArgs,
    },
    /// Shows what becomes of a packet of an interface of this node, by what its network agent was told last.
    Trace {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: admin::trace::TraceArgs,
    },
    /// Brings the database's schema to this version.
    Migrate(Role),
    /// After the database was restored from a backup: puts it ahead of what nodes have seen of the lost one.
    Restored(Role),
    /// Makes an administrator; the password is read from GON_ADMIN_PASSWORD or generated and shown.
    CreateAdmin {
        #[command(flatten)]
        common: Common,
        /// Their name.
        #[arg(long, default_value = "admin")]
        user: String,
    },
    /// Says whether gond runs in the data directory: exit code 0 if so.
    Running {
        #[command(flatten)]
        common: Common,
        /// Only if it executes this very file.
        #[arg(long)]
        same_binary: bool,
    },
    /// Stops gond; guests, switch and network go on.
    Stop(Role),
    /// Stops gond, all guests, the private switch and database, and leaves nothing behind but the data.
    Down(Role),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Says what is wrong with it, or shows where everything is.
    Check(Serve),
}

/// The runtime of every role: as many workers as processors, from two to four.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cpus.clamp(2, 4))
        .max_blocking_threads(16)
        .thread_name("gond")
        .enable_all()
        .build()
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Standalone(serve) => {
            let config = serve.common.load(serve.listen)?;
            telemetry::start(&config, "standalone")?;
            standalone::run(config, roles::stop_signal()?).await?;
        }
        Command::ApiServer(serve) => {
            let config = serve.common.load(serve.listen)?;
            telemetry::start(&config, "api-server")?;
            roles::api_server(config, roles::stop_signal()?).await?;
        }
        Command::NetworkController(role) => {
            let config = role.common.load(None)?;
            telemetry::start(&config, "network-controller")?;
            roles::network_controller(config, roles::stop_signal()?).await?;
        }
        Command::InstanceManager(role) => {
            let config = role.common.load(None)?;
            telemetry::start(&config, "instance-manager")?;
            roles::instance_manager(config, roles::stop_signal()?).await?;
        }
        Command::HypervisorAgent(role) => {
            let config = role.common.load(None)?;
            telemetry::start(&config, "hypervisor-agent")?;
            roles::hypervisor_agent(config, roles::stop_signal()?).await?;
        }
        Command::FenceKeeper(role) => {
            let config = role.common.load(None)?;
            telemetry::start(&config, "fence-keeper")?;
            let stop = roles::stop_signal()?;
            let state_dir = crate::layout::Layout::new(&config.data_dir).compute();
            tokio::select! {
                () = gon_agent::hypervisor::fence::keep_always(&state_dir) => {}
                () = stop.cancelled() => {}
            }
        }
        Command::NetworkAgent(role) => {
            let config = role.common.load(None)?;
            telemetry::start(&config, "network-agent")?;
            roles::network_agent(config, roles::stop_signal()?).await?;
        }
        Command::ContainerAgent(role) => {
            let config = role.common.load(None)?;
            telemetry::start(&config, "container-agent")?;
            roles::container_agent(config, roles::stop_signal()?).await?;
        }
        Command::StorageAgent(role) => {
            let config = role.common.load(None)?;
            telemetry::start(&config, "storage-agent")?;
            roles::storage_agent(config, roles::stop_signal()?).await?;
        }
        Command::Image(ImageCommand::Build { common, images_dir, images }) => {
            let config = common.load(None)?;
            admin::image::build(&images_dir.unwrap_or_else(|| config.images_dir()), &images).await?;
        }
        Command::Doctor { common, args } => return admin::doctor::run(&common.load(None)?, &args).await,
        Command::Join { common, args } => admin::join::run(&common.load(None)?, &args).await?,
        Command::Admin(AdminCommand::Init(args)) => admin::init::run(&args).await?,
        Command::Admin(AdminCommand::JoinToken { common, args }) => {
            admin::join::make_token(&common.load(None)?, &args).await?;
        }
        Command::Admin(AdminCommand::Uplink { common, command }) => {
            admin::uplink::run(&common.load(None)?, &command).await?;
        }
        Command::Admin(AdminCommand::Certificates(role)) => {
            admin::init::renew(&role.common.load(None)?).await?
        }
        Command::Admin(AdminCommand::Uninstall { common, args }) => {
            admin::init::uninstall::run(&common.load(None)?, &args).await?;
        }
        Command::Admin(AdminCommand::Trace { common, args }) => {
            admin::trace::run(&common.load(None)?, &args).await?;
        }
        Command::Admin(AdminCommand::Migrate(role)) => {
            admin::database::migrate(&role.common.load(None)?).await?;
        }
        Command::Admin(AdminCommand::Restored(role)) => {
            admin::database::restored(&role.common.load(None)?).await?;
        }
        Command::Admin(AdminCommand::CreateAdmin { common, user }) => {
            admin::database::create_admin(&common.load(None)?, &user).await?;
        }
        Command::Admin(AdminCommand::Running { common, same_binary }) => {
            return admin::down::running(&common.load(None)?, same_binary);
        }
        Command::Admin(AdminCommand::Stop(role)) => admin::down::stop(&role.common.load(None)?).await?,
        Command::Admin(AdminCommand::Down(role)) => admin::down::down(&role.common.load(None)?).await?,
        Command::Config(ConfigCommand::Check(serve)) => {
            admin::config::check(&serve.common.load(serve.listen)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
