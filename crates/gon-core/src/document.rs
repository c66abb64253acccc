//! The numbers of a node's documents: a version is given to one content only, and a content is published once.

use gon_types::DocumentVersion;

/// The version that `content` gets under `epoch`, where `held` (version, content, mark of a mass change) is in force; `Err`
/// is the one in force, if it stays.
pub fn number<D: PartialEq>(
    held: Option<(DocumentVersion, &D, bool)>,
    epoch: u64,
    content: &D,
    mass_change_ok: bool,
) -> Result<DocumentVersion, DocumentVersion> {
    match held {
        // Whoever published that one leads, or led later.
        Some((version, ..)) if version.epoch > epoch => Err(version),
        // The same; unless it is known by now that what is missing in it is meant to be gone.
        Some((version, held, marked))
            if version.epoch == epoch && held == content && (marked || !mass_change_ok) =>
        {
            Err(version)
        }
        Some((version, ..)) if version.epoch == epoch => {
            Ok(DocumentVersion { epoch, generation: version.generation + 1 })
        }
        _ => Ok(DocumentVersion { epoch, generation: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, generation: u64) -> DocumentVersion {
        DocumentVersion { epoch, generation }
    }

    #[test]
    fn a_version_means_one_content() {
        let table = [
            // held, epoch, content, mark → version
            (None, 3, "a", false, Ok(at(3, 1))),
            (Some((at(3, 4), &"a", false)), 3, "a", false, Err(at(3, 4))),
            (Some((at(3, 4), &"a", false)), 3, "b", false, Ok(at(3, 5))),
            // What is missing turned out to be meant; once is enough.
            (Some((at(3, 4), &"a", false)), 3, "a", true, Ok(at(3, 5))),
            (Some((at(3, 4), &"a", true)), 3, "a", true, Err(at(3, 4))),
            (Some((at(3, 4), &"a", true)), 3, "a", false, Err(at(3, 4))),
            // Another leader begins anew; one that was deposed says nothing.
            (Some((at(3, 4), &"a", false)), 4, "a", false, Ok(at(4, 1))),
            (Some((at(3, 4), &"a", false)), 2, "b", true, Err(at(3, 4))),
        ];
        for (held, epoch, content, mark, wanted) in table {
            assert_eq!(number(held, epoch, &content, mark), wanted, "{held:?} {epoch} {content} {mark}");
        }
    }

    #[test]
    fn versions_only_rise() {
        for (epoch, content, mark) in (1..5)
            .flat_map(|e| ["a", "b"].map(|c| (e, c)))
            .flat_map(|(e, c)| [false, true].map(|m| (e, c, m)))
        {
            let held = at(3, 4);
            match number(Some((held, &"a", false)), epoch, &content, mark) {
                Ok(new) => assert!(new > held),
                Err(same) => assert_eq!(same, held),
            }
        }
    }
}
