import { useTranslation } from 'react-i18next';
import type { Texts } from '../i18n/en';

type KnownState = keyof Texts['state'];

const TONES: Record<KnownState, 'good' | 'busy' | 'idle' | 'bad'> = {
  pending: 'busy',
  running: 'good',
  stopping: 'busy',
  stopped: 'idle',
  'shutting-down': 'busy',
  terminated: 'idle',
  available: 'good',
  'in-use': 'good',
  attached: 'good',
  detached: 'idle',
  active: 'good',
  blackhole: 'bad',
  deleting: 'busy',
  failed: 'bad',
  unknown: 'bad',
};

function isKnown(state: string): state is KnownState {
  return state in TONES;
}

/** A state as a word, with a dot whose shape and colour repeat it: nobody has to tell colours apart. */
export function StateTag({ state }: { state: string }) {
  const { t } = useTranslation();
  const tone = isKnown(state) ? TONES[state] : 'idle';
  return (
    <span className="state-tag" data-state={state} data-tone={tone}>
      <span className="state-dot" aria-hidden="true" />
      {isKnown(state) ? t(`state.${state}`) : state}
    </span>
  );
}
