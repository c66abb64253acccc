/** Start, stop, reboot, terminate: when each is possible, what is asked first, and what is said afterwards. */
import { App } from 'antd';
import { useTranslation } from 'react-i18next';
import {
  useRebootInstanceMutation,
  useStartInstanceMutation,
  useStopInstanceMutation,
  useTerminateInstanceMutation,
} from '../../api';
import { isProblem } from '../../api/errors';
import type { Instance, InstanceState } from '../../api/types';
import { ProblemAlert } from '../../ui/ProblemAlert';

export const ACTIONS = ['start', 'stop', 'reboot', 'terminate'] as const;
export type InstanceAction = (typeof ACTIONS)[number];

/** EC2's edges: what may be asked of an instance in which state. */
const ALLOWED: Record<InstanceAction, readonly InstanceState[]> = {
  start: ['stopped'],
  stop: ['running'],
  reboot: ['running'],
  terminate: ['pending', 'running', 'stopping', 'stopped', 'unknown'],
};

export function isAllowed(action: InstanceAction, state: InstanceState): boolean {
  return ALLOWED[action].includes(state);
}

const DONE = { start: 'started', stop: 'stopped', reboot: 'rebooted', terminate: 'terminated' } as const;
const QUESTIONS = {
  stop: { title: 'instances.stopTitle', body: 'instances.stopBody' },
  reboot: { title: 'instances.rebootTitle', body: 'instances.rebootBody' },
  terminate: { title: 'instances.terminateTitle', body: 'instances.terminateBody' },
} as const;

export function useInstanceActions(): (action: InstanceAction, instance: Instance) => void {
  const { t } = useTranslation();
  const { modal, message, notification } = App.useApp();
  const [start] = useStartInstanceMutation();
  const [stop] = useStopInstanceMutation();
  const [reboot] = useRebootInstanceMutation();
  const [terminate] = useTerminateInstanceMutation();
  const calls = { start, stop, reboot, terminate };

  const run = async (action: InstanceAction, { id, name }: Instance) => {
    try {
      await calls[action](id).unwrap();
      void message.success(t(`instances.${DONE[action]}`, { name }));
    } catch (error) {
      if (isProblem(error)) {
        notification.error({
          key: `${action}-${id}`,
          title: `${t(`instances.${action}`)}: ${name}`,
          description: <ProblemAlert problem={error} />,
          icon: null,
          duration: 0,
          className: 'problem-notice',
        });
      }
    }
  };

  return (action, instance) => {
    if (action === 'start') {
      void run(action, instance);
      return;
    }
    const question = QUESTIONS[action];
    modal.confirm({
      title: t(question.title, { name: instance.name }),
      content: (
        <>
          <p className="mono">{instance.id}</p>
          <p>{t(question.body)}</p>
        </>
      ),
      okText: t(`instances.${action}`),
      okButtonProps: { danger: action === 'terminate' },
      cancelText: t('common.cancel'),
      focusable: { autoFocusButton: 'cancel' },
      onOk: () => run(action, instance),
    });
  };
}
