import type { FormProps } from 'antd';

/** How every form marks what must be filled in. */
export const requiredMark: FormProps['requiredMark'] = (label, { required }) => (
  <span className={required ? 'required' : undefined}>{label}</span>
);
