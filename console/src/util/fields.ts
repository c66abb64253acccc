/** `security_group_ids[0]`, `/security_group_ids/0` and `security_group_ids.0` all name the same form field. */
export function topLevelField(field: string): string {
  return field.replace(/^[/.$]+/, '').split(/[.[/]/)[0] ?? field;
}
