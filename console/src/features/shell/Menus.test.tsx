import { screen, waitFor } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import { openConsole } from '../../../test/console';

describe('the header', () => {
  it('switches to Korean at once, antd included, and remembers it', async () => {
    const { user } = openConsole('/instances?q=nothing-like-this');
    await user.click(await screen.findByRole('button', { name: 'Language: English' }));
    await user.click(await screen.findByRole('menuitem', { name: '한국어' }));
    expect(await screen.findByRole('heading', { name: '인스턴스' })).toBeTruthy();
    expect(screen.getByText('조건에 맞는 항목이 없습니다.')).toBeTruthy();
    expect(document.documentElement.lang).toBe('ko');
    expect(localStorage.getItem('gon.language')).toBe('ko');
  });

  it('switches to dark and remembers it', async () => {
    const { user } = openConsole('/vpcs');
    await user.click(await screen.findByRole('button', { name: /^Theme/ }));
    await user.click(await screen.findByRole('menuitem', { name: 'Dark' }));
    await waitFor(() => expect(document.documentElement.dataset.theme).toBe('dark'));
    expect(localStorage.getItem('gon.theme')).toBe('dark');
  });
});
