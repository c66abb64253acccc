import { useRef, useState } from 'react';

/**
 * For a drawer that is a route: closes it first, so that it slides out and gives the focus back, and leaves the route
 * (`leave`) only then.
 */
export function useRouteDrawer(leave: () => void): {
  open: boolean;
  onClose: () => void;
  afterOpenChange: (open: boolean) => void;
} {
  const [open, setOpen] = useState(true);
  const left = useRef(false);
  return {
    open,
    onClose: () => setOpen(false),
    afterOpenChange: (nowOpen) => {
      if (!nowOpen && !left.current) {
        left.current = true;
        leave();
      }
    },
  };
}
