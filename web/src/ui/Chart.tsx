// A chart over time: uPlot in a chunk of its own, loaded with the first chart. Dragging asks for a narrower frame.
import { useEffect, useRef, useState } from 'preact/hooks';
import type uPlot from 'uplot';
import { short } from '../model/format';
import type { Zone } from '../model/time';

export type ChartLine = { name: string; color: string; values: (number | null)[] };

type Props = {
  starts: number[];
  lines: ChartLine[];
  zone: Zone;
  dark: boolean;
  zoom: (from: number, to: number) => void;
  summary: string;
};

export function Chart({ starts, lines, zone, dark, zoom, summary }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const [fault, setFault] = useState(false);
  const latest = useRef(zoom);
  latest.current = zoom;
  useEffect(() => {
    let chart: uPlot | undefined;
    let gone = false;
    const element = place.current;
    if (!element || starts.length === 0) return;
    const watch = new ResizeObserver(() => chart?.setSize({ width: element.clientWidth, height: 200 }));
    const draw = (Plot: typeof uPlot) => {
      if (gone) return;
      const soft = dark ? '#a3abb7' : '#5b6068';
      const grid = { stroke: dark ? '#2b323d' : '#e6e4df', width: 1 };
      const step = (starts[1] ?? 0) - (starts[0] ?? 0);
      const bars = Plot.paths.bars?.({ size: [0.8, 40] });
      const single = lines.length === 1;
      chart = new Plot(
        {
          width: element.clientWidth,
          height: 200,
          legend: { show: false },
          cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
          ...(zone === 'UTC' ? { tzDate: (time: number) => Plot.tzDate(new Date(time * 1000), 'UTC') } : {}),
          scales: { y: { range: (_plot: uPlot, _min: number, max: number) => [0, max > 0 ? max * 1.08 : 1] } },
          axes: [
            {
              stroke: soft,
              grid,
              ticks: grid,
              size: 44,
              // A time with its seconds is as wide as this, and nothing is measured below a second.
              space: 76,
              incrs: INCREMENTS,
              values: (_plot: uPlot, times: number[], _axis: number, _space: number, step: number) => ticks(times, step, zone),
            },
            { stroke: soft, grid, ticks: grid, size: 54, values: (_plot: uPlot, ticks: number[]) => ticks.map(short) },
          ],
          series: [
            {},
            ...lines.map((line) => ({
              label: line.name,
              stroke: line.color,
              width: 1.6,
              points: { show: false },
              ...(single && bars ? { paths: bars, fill: `${line.color}cc` } : {}),
            })),
          ],
          hooks: {
            setSelect: [
              (plot: uPlot) => {
                if (plot.select.width < 4) return;
                const [from, to] = [
                  plot.posToVal(plot.select.left, 'x'),
                  plot.posToVal(plot.select.left + plot.select.width, 'x'),
                ];
                plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
                latest.current(Math.floor(from), Math.max(Math.ceil(to), Math.floor(from) + Math.max(step, 1)));
              },
            ],
          },
        },
        [starts, ...lines.map((line) => line.values)],
        element,
      );
      watch.observe(element);
    };
    // The server may be away just when the chart's own chunk is asked for.
    Promise.all([import('uplot'), import('uplot/dist/uPlot.min.css')]).then(
      ([{ default: Plot }]) => draw(Plot),
      () => setFault(!gone),
    );
    return () => {
      gone = true;
      watch.disconnect();
      chart?.destroy();
    };
  }, [starts, lines, zone, dark]);
  return (
    <div class="chart">
      <div ref={place} aria-hidden="true" />
      {fault && <p class="soft">The chart could not be loaded: reload the page once the server answers again.</p>}
      <p class="hidden">{summary}</p>
    </div>
  );
}

/** Seconds between the marks of an axis, those that people count in. */
const INCREMENTS = [
  ...[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800],
  ...[1, 2, 3, 6, 12].map((hours) => hours * 3600),
  ...[1, 2, 7, 14, 30, 90, 365].map((days) => days * 86400),
];

/** Times of an axis: as fine as its steps, the date where a day begins. */
function ticks(times: number[], step: number, zone: Zone): string[] {
  let day = '';
  return times.map((time) => {
    const options: Intl.DateTimeFormatOptions = zone === 'UTC' ? { timeZone: 'UTC' } : {};
    const date = new Intl.DateTimeFormat('en-GB', { ...options, day: 'numeric', month: 'short' }).format(time * 1000);
    const clock: Intl.DateTimeFormatOptions = { ...options, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
    if (step < 60) clock.second = '2-digit';
    const text = step >= 86400 ? '' : new Intl.DateTimeFormat('en-GB', clock).format(time * 1000);
    const shown = date === day ? text : `${text}\n${date}`;
    day = date;
    return shown.trim();
  });
}

/** A course over time in the width of a word. */
export function Spark({ values, color }: { values: number[]; color: string }) {
  const most = Math.max(...values, 1);
  const points = values.map(
    (value, at) => `${((at / Math.max(values.length - 1, 1)) * 118 + 1).toFixed(1)},${(20 - (value / most) * 18).toFixed(1)}`,
  );
  return (
    <svg class="spark" viewBox="0 0 120 22" aria-hidden="true">
      <polyline points={points.join(' ')} fill="none" stroke={color} stroke-width="1.4" />
    </svg>
  );
}
