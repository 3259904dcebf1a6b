// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// The page that is kept with the project: a table, plots drawn by hand as SVG, and the raw samples
// beside it, so that whoever doubts a figure can do the sums again.

const (
	colourOurs = "#1f6f8b"
	colourPeer = "#c0603a"
	colourInk  = "#333"
	colourGrid = "#ddd"
	fontStyle  = `font-family="DejaVu Sans, Verdana, sans-serif" font-size="12"`
)

// writePage fills DIR with figures.md, *.svg and raw/.
func writePage(dir, raw string, wanted []definition, results map[string]result, records []record) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := copyRaw(raw, filepath.Join(dir, "raw")); err != nil {
		return err
	}
	plots := map[string]string{
		"ratios.svg":     plotRatios(wanted, results),
		"pod-create.svg": plotDistribution(records, "pod_create", "RunPodSandbox, ms: share of pods that were ready by then"),
		"lifecycle.svg":  plotDistribution(records, "lifecycle", "pod and container up and down, ms: share that was done by then"),
		"memory.svg":     plotBars(results, "MiB", "idle_pod_pss", "daemon_pss_100_pods", "daemon_rss_peak_pull"),
	}
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	text, err := figures(raw, wanted, results)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "figures.md"), []byte(text), 0o644)
}

func copyRaw(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(from, "*.json"))
	if err != nil {
		return err
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(name)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func figures(raw string, wanted []definition, results map[string]result) (string, error) {
	data, err := os.ReadFile(filepath.Join(raw, "versions.json"))
	if err != nil {
		return "", err
	}
	versions := map[string]string{}
	if err := json.Unmarshal(data, &versions); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("<!-- Written by `make bench PAGE=docs/bench`; README.md has the method and what the figures mean. -->\n\n")
	b.WriteString("# Figures\n\n| | |\n|---|---|\n")
	keys := make([]string, 0, len(versions))
	for key := range versions {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		if versions[key] != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", key, versions[key])
		}
	}
	b.WriteString("\n| metric | what | casemate | peer | ratio | n | target |\n|---|---|---:|---:|---:|---:|---|\n")
	for _, d := range wanted {
		r := results[d.name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %d | %s |\n", d.name, d.what, withUnit(r.Casemate, r.Unit),
			withUnit(r.Peer, r.Unit), show(r.Ratio, "%.2f"), r.N, verdict(&r))
	}
	b.WriteString("\n")
	for _, d := range wanted {
		if reason := results[d.name].Reason; reason != "" {
			fmt.Fprintf(&b, "`%s` has no ratio: %s.\n\n", d.name, reason)
		}
	}
	b.WriteString("![ratios](ratios.svg)\n\n![pod create](pod-create.svg)\n\n![lifecycle](lifecycle.svg)\n\n![memory](memory.svg)\n")
	return b.String(), nil
}

func withUnit(v *float64, unit string) string {
	if v == nil {
		return "–"
	}
	precision := 1
	if math.Abs(*v) < 10 {
		precision = 2
	}
	return fmt.Sprintf("%.*f %s", precision, *v, unit)
}

// canvas is an SVG in the making.
type canvas struct {
	strings.Builder
	width, height float64
}

func newCanvas(width, height float64) *canvas {
	c := &canvas{width: width, height: height}
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %g %g" %s>`+"\n", width, height,
		width, height, fontStyle)
	fmt.Fprintf(c, `<rect width="%g" height="%g" fill="white"/>`+"\n", width, height)
	return c
}

func (c *canvas) text(x, y float64, anchor, s string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, colourInk,
		html.EscapeString(s))
}

func (c *canvas) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
}

func (c *canvas) bar(x, y, width, height float64, colour string) {
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, math.Max(width, 0.5), height, colour)
}

func (c *canvas) legend(x, y float64) {
	for i, entry := range [][2]string{{"casemate", colourOurs}, {"containerd + runc", colourPeer}} {
		c.bar(x+float64(i)*110, y-9, 10, 10, entry[1])
		c.text(x+float64(i)*110+15, y, "start", entry[0])
	}
}

func (c *canvas) end() string {
	return c.String() + "</svg>\n"
}

// plotRatios draws every ratio on a logarithmic scale around 1, with a mark where the target is.
func plotRatios(wanted []definition, results map[string]result) string {
	var shown []definition
	low, high := 0.1, 10.0
	for _, d := range wanted {
		if r := results[d.name]; r.Ratio != nil && *r.Ratio > 0 {
			shown = append(shown, d)
			low, high = math.Min(low, *r.Ratio), math.Max(high, *r.Ratio)
		}
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	const left, row, width = 230.0, 20.0, 820.0
	height := 50 + row*float64(len(shown))
	c := newCanvas(width, height+20)
	x := func(v float64) float64 {
		return left + (width-left-70)*math.Log(v/low)/math.Log(high/low)
	}
	c.text(left, 18, "start", "casemate : containerd + runc (less is better, but for streams; the mark is the target)")
	for v := low; v <= high*1.001; v *= 10 {
		c.line(x(v), 30, x(v), height, colourGrid)
		c.text(x(v), height+14, "middle", fmt.Sprintf("%gx", v))
	}
	c.line(x(1), 30, x(1), height, colourInk)
	for i, d := range shown {
		r := results[d.name]
		y := 36 + row*float64(i)
		c.text(left-8, y+11, "end", d.name)
		from, to := math.Min(x(1), x(*r.Ratio)), math.Max(x(1), x(*r.Ratio))
		colour := colourOurs
		if *r.Ratio > 1 != d.more {
			colour = colourPeer
		}
		c.bar(from, y, to-from, 13, colour)
		c.text(math.Max(to, x(1))+6, y+11, "start", fmt.Sprintf("%.2f", *r.Ratio))
		if d.ratio > 0 {
			c.bar(x(d.ratio)-1, y-2, 2, 17, colourInk)
		}
	}
	return c.end()
}

// plotDistribution draws, for both runtimes, which share of the samples is at most so large.
func plotDistribution(records []record, metric, title string) string {
	ours, _ := pooled(records, "casemate", metric)
	peers, _ := pooled(records, "peer", metric)
	highest := 1.0
	for _, v := range append(append([]float64{}, ours...), peers...) {
		highest = math.Max(highest, v)
	}
	const left, top, width, height = 50.0, 44.0, 820.0, 300.0
	c := newCanvas(width, height+40)
	x := func(v float64) float64 { return left + (width-left-30)*v/highest }
	y := func(share float64) float64 { return height - (height-top)*share }
	c.text(left, 18, "start", title)
	c.legend(left, 36)
	step := math.Pow(10, math.Floor(math.Log10(highest)))
	if highest/step < 3 {
		step /= 5
	}
	for v := 0.0; v <= highest; v += step {
		c.line(x(v), top, x(v), height, colourGrid)
		c.text(x(v), height+16, "middle", fmt.Sprintf("%g", math.Round(v*1000)/1000))
	}
	for share := 0.0; share <= 1; share += 0.25 {
		c.line(left, y(share), width-30, y(share), colourGrid)
		c.text(left-6, y(share)+4, "end", fmt.Sprintf("%.0f %%", 100*share))
	}
	for _, side := range []struct {
		samples []float64
		colour  string
	}{{ours, colourOurs}, {peers, colourPeer}} {
		if len(side.samples) == 0 {
			continue
		}
		sorted := append([]float64(nil), side.samples...)
		sort.Float64s(sorted)
		var path strings.Builder
		fmt.Fprintf(&path, "M%.1f %.1f", x(sorted[0]), y(0))
		for i, v := range sorted {
			fmt.Fprintf(&path, " H%.1f V%.1f", x(v), y(float64(i+1)/float64(len(sorted))))
		}
		fmt.Fprintf(c, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), side.colour)
	}
	return c.end()
}

// plotBars draws both sides of metrics that share a unit.
func plotBars(results map[string]result, unit string, names ...string) string {
	const left, row, width = 230.0, 46.0, 820.0
	height := 50 + row*float64(len(names))
	highest := 1.0
	for _, name := range names {
		for _, v := range []*float64{results[name].Casemate, results[name].Peer} {
			if v != nil {
				highest = math.Max(highest, *v)
			}
		}
	}
	c := newCanvas(width, height)
	c.text(left, 18, "start", unit)
	c.legend(left, 36)
	for i, name := range names {
		y := 50 + row*float64(i)
		c.text(left-8, y+18, "end", name)
		for j, side := range []struct {
			value  *float64
			colour string
		}{{results[name].Casemate, colourOurs}, {results[name].Peer, colourPeer}} {
			if side.value == nil {
				continue
			}
			w := (width - left - 80) * *side.value / highest
			c.bar(left, y+float64(j)*16, w, 14, side.colour)
			c.text(left+w+6, y+float64(j)*16+12, "start", fmt.Sprintf("%.1f", *side.value))
		}
	}
	return c.end()
}
