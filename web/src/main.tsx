// Begins the page.
import { render } from 'preact';
import './app/tokens.css';
import { App } from './app/Shell';
import { applyTheme, readTheme } from './app/theme';

applyTheme(readTheme());
const root = document.getElementById('app');
if (root) render(<App />, root);
