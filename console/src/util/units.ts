/** MiB as people write memory: "512 MiB", "2 GiB", "1.5 GiB". */
export function memoryText(mib: number): string {
  if (mib < 1024) {
    return `${mib} MiB`;
  }
  const gib = mib / 1024;
  return `${Number.isInteger(gib) ? gib : gib.toFixed(1)} GiB`;
}
