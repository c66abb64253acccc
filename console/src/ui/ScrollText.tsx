import { forwardRef } from 'react';

/** Preformatted text that may be larger than its box. Named and focusable, so that it can be scrolled by keyboard. */
export const ScrollText = forwardRef<
  HTMLElement,
  { label: string; text: string; className?: string; wrap?: boolean }
>(function ScrollText({ label, text, className = '', wrap = false }, ref) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
    <section ref={ref} className={`code ${className}`} data-wrap={wrap} aria-label={label} tabIndex={0}>
      <pre>{text}</pre>
    </section>
  );
});
