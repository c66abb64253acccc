/**
 * The look: antd's algorithms with our colours. Every pair of text and ground that appears has a contrast of at least
 * 4.5 (checked in a browser by `e2e/screens.e2e.ts`).
 */
import { theme as antd, type ThemeConfig } from 'antd';

const FONT =
  'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Apple SD Gothic Neo", "Noto Sans KR", "Noto Sans CJK KR", "Malgun Gothic", sans-serif';
const MONO = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono", monospace';

const shared = {
  fontFamily: FONT,
  fontFamilyCode: MONO,
  borderRadius: 8,
  controlHeight: 34,
  motionDurationSlow: '0.2s',
  motionDurationMid: '0.15s',
};

export const lightTheme: ThemeConfig = {
  cssVar: { key: 'gon' },
  hashed: false,
  algorithm: antd.defaultAlgorithm,
  token: {
    ...shared,
    colorPrimary: '#0f766e',
    colorPrimaryHover: '#115e59',
    colorPrimaryActive: '#134e4a',
    colorLink: '#0f766e',
    colorLinkHover: '#115e59',
    colorLinkActive: '#134e4a',
    colorInfo: '#0f766e',
    colorError: '#c8232c',
    colorErrorText: '#b91c1c',
    colorText: 'rgba(9, 24, 33, 0.92)',
    colorTextSecondary: 'rgba(9, 24, 33, 0.72)',
    colorTextTertiary: 'rgba(9, 24, 33, 0.66)',
    colorTextDescription: 'rgba(9, 24, 33, 0.68)',
    colorTextPlaceholder: 'rgba(9, 24, 33, 0.62)',
    colorBgLayout: '#f3f6f7',
    colorBorder: '#7f8f97',
    colorBorderSecondary: '#e2e8ea',
  },
  components: {
    Table: { headerBg: '#f7f9fa', cellPaddingBlockMD: 10 },
  },
};

export const darkTheme: ThemeConfig = {
  cssVar: { key: 'gon' },
  hashed: false,
  algorithm: antd.darkAlgorithm,
  token: {
    ...shared,
    colorPrimary: '#14857b',
    colorPrimaryHover: '#117a71',
    colorPrimaryActive: '#0f6b63',
    colorLink: '#5eead4',
    colorLinkHover: '#99f6e4',
    colorLinkActive: '#2dd4bf',
    colorInfo: '#2dd4bf',
    // Text on the page as well as the ground of a button, whose text is dark for that reason (`dangerColor`).
    colorError: '#f87171',
    colorErrorHover: '#fca5a5',
    colorErrorActive: '#ef5350',
    colorText: 'rgba(255, 255, 255, 0.9)',
    colorTextSecondary: 'rgba(255, 255, 255, 0.72)',
    colorTextTertiary: 'rgba(255, 255, 255, 0.66)',
    colorTextDescription: 'rgba(255, 255, 255, 0.68)',
    colorTextPlaceholder: 'rgba(255, 255, 255, 0.6)',
    colorBgBase: '#0d1518',
    colorBgLayout: '#0a1113',
    colorBgContainer: '#121c20',
    colorBgElevated: '#18252a',
    colorBorder: '#62757d',
    colorBorderSecondary: '#25343a',
  },
  components: {
    Button: { dangerColor: '#2a0a0c' },
    Table: { headerBg: '#172328', cellPaddingBlockMD: 10 },
  },
};
