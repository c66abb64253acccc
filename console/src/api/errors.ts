/**
 * What can go wrong with a call, in one shape: an RFC 9457 problem from the server, or no answer at all.
 * Every RTK Query error in the console is an `ApiProblem`; nothing else reaches a component.
 */
import type { FetchBaseQueryError } from '@reduxjs/toolkit/query';
import type { ProblemBody } from './types';

/** Codes of our own, for failures in which the server had no say. */
export type LocalCode = 'NetworkError' | 'Timeout' | 'BadResponse';

export interface ApiProblem {
  /** The HTTP status; 0 when there was no answer. */
  status: number;
  /** EC2's code, or a `LocalCode`. */
  code: string;
  title: string;
  detail: string;
  field: string | null;
  requestId: string | null;
  blockers: string[];
}

function local(status: number, code: LocalCode): ApiProblem {
  return { status, code, title: '', detail: '', field: null, requestId: null, blockers: [] };
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function fromBody(status: number, body: unknown): ApiProblem {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    return local(status, 'BadResponse');
  }
  // Something between us and the server may have written it: nothing is taken for granted.
  const problem = body as Partial<ProblemBody>;
  return {
    status,
    code: text(problem.code) || `HTTP ${status}`,
    title: text(problem.title),
    detail: text(problem.detail),
    field: text(problem.field) || null,
    requestId: text(problem.request_id) || null,
    blockers: Array.isArray(problem.blockers) ? problem.blockers.map(text).filter(Boolean) : [],
  };
}

export function toProblem(error: FetchBaseQueryError): ApiProblem {
  switch (error.status) {
    case 'FETCH_ERROR':
      return local(0, 'NetworkError');
    case 'TIMEOUT_ERROR':
      return local(0, 'Timeout');
    case 'PARSING_ERROR':
      return local(error.originalStatus, 'BadResponse');
    case 'CUSTOM_ERROR':
      return local(0, 'BadResponse');
    default:
      return fromBody(error.status, error.data);
  }
}

/** Whether a caught value is an `ApiProblem` (RTK Query's `unwrap` throws them). */
export function isProblem(value: unknown): value is ApiProblem {
  return typeof value === 'object' && value !== null && 'code' in value && 'blockers' in value;
}

/** Whether the server never answered, so that the same call may be tried again. */
export function isUnreachable(problem: ApiProblem): boolean {
  return problem.status === 0 || problem.status === 502 || problem.status === 503 || problem.status === 504;
}
