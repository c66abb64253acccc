import { Spin } from 'antd';

/** A whole page that is not there yet. */
export function Waiting({ text }: { text: string }) {
  return (
    <div className="waiting" role="status">
      <Spin size="large" />
      <span>{text}</span>
    </div>
  );
}
