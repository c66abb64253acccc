import { useState } from 'react';
import { type ApiProblem, isProblem } from '../../api/errors';
import type { ChangeState } from '../../ui/RowsEditor';

/** Makes changes and keeps why the last one was refused. `change` says whether it was taken. */
export function useChange(): {
  change: (call: () => Promise<unknown>) => Promise<boolean>;
  state: ChangeState;
} {
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<ApiProblem | null>(null);
  const change = async (call: () => Promise<unknown>): Promise<boolean> => {
    setBusy(true);
    setRefusal(null);
    try {
      await call();
      return true;
    } catch (error) {
      if (!isProblem(error)) {
        throw error;
      }
      setRefusal(error);
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { change, state: { busy, refusal } };
}
