import { MoreOutlined } from '@ant-design/icons';
import { Button, Dropdown, type MenuProps } from 'antd';
import { useTranslation } from 'react-i18next';
import { useLocation, useNavigate } from 'react-router';
import type { Instance } from '../../api/types';
import { paths } from '../../paths';
import { ACTIONS, type InstanceAction, isAllowed } from './useInstanceActions';

/** The menu at the end of a row. */
export function RowActions({
  instance,
  onAction,
}: {
  instance: Instance;
  onAction: (action: InstanceAction, instance: Instance) => void;
}) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { search } = useLocation();
  const items: MenuProps['items'] = [
    { key: 'details', label: t('instances.details') },
    { key: 'console', label: t('instances.console') },
    { type: 'divider' },
    ...ACTIONS.map((action) => ({
      key: action,
      label: t(`instances.${action}`),
      disabled: !isAllowed(action, instance.state),
      danger: action === 'terminate',
    })),
  ];
  const onClick: MenuProps['onClick'] = ({ key }) => {
    if (key === 'details') {
      void navigate({ pathname: paths.instance(instance.id), search });
    } else if (key === 'console') {
      void navigate({ pathname: paths.instanceConsole(instance.id), search });
    } else {
      onAction(key as InstanceAction, instance);
    }
  };
  return (
    <Dropdown trigger={['click']} placement="bottomRight" menu={{ items, onClick }}>
      <Button
        type="text"
        size="small"
        icon={<MoreOutlined aria-hidden="true" />}
        aria-label={t('instances.actionsFor', { name: instance.name })}
        aria-haspopup="menu"
      />
    </Dropdown>
  );
}
