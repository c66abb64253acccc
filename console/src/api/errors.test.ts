import { describe, expect, it } from 'vitest';
import { topLevelField } from '../util/fields';
import { isUnreachable, toProblem } from './errors';

describe('problems', () => {
  it('keep code, detail, field, request id and blockers', () => {
    const problem = toProblem({
      status: 409,
      data: {
        code: 'DependencyViolation',
        title: 'Conflict',
        detail: 'the VPC has dependents',
        field: null,
        request_id: 'req-1',
        blockers: ['subnet-1', 'i-1', {}],
      },
    });
    expect(problem).toEqual({
      status: 409,
      code: 'DependencyViolation',
      title: 'Conflict',
      detail: 'the VPC has dependents',
      field: null,
      requestId: 'req-1',
      blockers: ['subnet-1', 'i-1'],
    });
  });

  it('are made of anything the server may say', () => {
    expect(toProblem({ status: 500, data: null }).code).toBe('BadResponse');
    expect(toProblem({ status: 500, data: [1] }).code).toBe('BadResponse');
    expect(toProblem({ status: 418, data: { code: 7, blockers: 'x' } })).toMatchObject({
      code: 'HTTP 418',
      blockers: [],
    });
    expect(
      toProblem({ status: 'PARSING_ERROR', originalStatus: 502, data: '<html>', error: '' }),
    ).toMatchObject({
      status: 502,
      code: 'BadResponse',
    });
    expect(isUnreachable(toProblem({ status: 'FETCH_ERROR', error: 'x' }))).toBe(true);
    expect(isUnreachable(toProblem({ status: 400, data: {} }))).toBe(false);
  });

  it('name a form field however the server writes it', () => {
    for (const written of [
      'security_group_ids',
      'security_group_ids[1]',
      '/security_group_ids/1',
      '$.security_group_ids.1',
    ]) {
      expect(topLevelField(written)).toBe('security_group_ids');
    }
  });
});
