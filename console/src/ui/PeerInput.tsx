import { AutoComplete, Input, type InputProps, type InputRef } from 'antd';
import { forwardRef } from 'react';
import { Option } from './Option';

/** Something that can be the other side of a rule, or where a route leads. */
export interface Peer {
  /** What the rule says: a block or an id. */
  value: string;
  name: string;
  note?: string;
}

/** The field of a choice in which nothing need be chosen: while nothing is, antd names an option that does not exist. */
const TypedChoice = forwardRef<InputRef, InputProps>((props, ref) => {
  const active = props['aria-activedescendant'];
  return <Input {...props} ref={ref} aria-activedescendant={active?.endsWith('_-1') ? undefined : active} />;
});

/** A block or an id: typed, or chosen of what there is. For a form: that gives it its value. */
export function PeerInput({
  hint,
  peers,
  ...field
}: {
  /** What it may be. */
  hint: string;
  /** What of that has a name to choose it by. */
  peers: Peer[] | undefined;
  id?: string;
  value?: string;
  disabled?: boolean;
  onChange?: (value: string) => void;
}) {
  if (peers === undefined) {
    const { onChange, ...rest } = field;
    return (
      <Input
        {...rest}
        className="mono"
        autoComplete="off"
        spellCheck={false}
        placeholder={hint}
        onChange={({ target }) => onChange?.(target.value)}
      />
    );
  }
  return (
    <AutoComplete
      {...field}
      options={peers.map(({ value, name, note }) => ({
        value,
        text: `${value} ${name} ${note ?? ''}`.toLowerCase(),
        label: <Option name={name} note={note} />,
      }))}
      showSearch={{
        filterOption: (typed, option) => (option?.text ?? '').includes(typed.trim().toLowerCase()),
      }}
    >
      <TypedChoice className="mono" spellCheck={false} placeholder={hint} />
    </AutoComplete>
  );
}
