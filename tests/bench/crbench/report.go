// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/tabwriter"
)

// definition says how a metric of results.json comes out of samples.
type definition struct {
	name    string
	samples string
	q       float64
	unit    string
	command string
}

var definitions = []definition{
	{"pod_create_p50", "pod_create", 0.50, "ms", "latency"},
	{"pod_create_p95", "pod_create", 0.95, "ms", "latency"},
	{"pod_stop_p50", "pod_stop", 0.50, "ms", "latency"},
	{"pod_remove_p50", "pod_remove", 0.50, "ms", "latency"},
	{"container_create_p50", "container_create", 0.50, "ms", "latency"},
	{"container_start_p50", "container_start", 0.50, "ms", "latency"},
	{"container_stop_p50", "container_stop", 0.50, "ms", "latency"},
	{"container_remove_p50", "container_remove", 0.50, "ms", "latency"},
	{"exec_true_p50", "exec_true", 0.50, "ms", "exec"},
	{"lifecycle_p50", "lifecycle", 0.50, "ms", "latency"},
	{"pull_150mb", "pull_150mb", 0.50, "ms", "pull"},
	{"idle_pod_pss", "idle_pod_pss", 0.50, "MiB", "pss"},
	{"runtime_pss_100_pods", "runtime_pss", 0.50, "MiB", "pss"},
	{"list_500_p99", "list_500", 0.99, "ms", "list"},
}

// result is one metric of results.json. A value that was not measured is null, and then reason says
// why.
type result struct {
	Casemate *float64 `json:"casemate"`
	Peer     *float64 `json:"peer"`
	Ratio    *float64 `json:"ratio"`
	Unit     string   `json:"unit"`
	N        int      `json:"n"`
	Reason   string   `json:"reason,omitempty"`
}

// report pools the samples of all rounds, runtime by runtime. n is the smaller of the two runtimes'
// sample counts.
func report(args []string) error {
	fs := flag.NewFlagSet("report", flag.ExitOnError)
	raw := fs.String("raw", "", "folder of the records")
	out := fs.String("out", "", "results.json")
	only := fs.String("only", "", "metrics, separated by commas; empty: all")
	list := fs.Bool("list", false, "only print the subcommands that --only needs")
	absent := fs.String("absent", "", "RUNTIME=REASON;… for runtimes that were not run")
	if err := fs.Parse(args); err != nil {
		return err
	}
	wanted, err := chosen(*only)
	if err != nil {
		return err
	}
	if *list {
		fmt.Println(strings.Join(commands(wanted), "\n"))
		return nil
	}
	records, err := readRecords(*raw)
	if err != nil {
		return err
	}
	results := map[string]result{}
	missing := 0
	for _, d := range wanted {
		r := d.evaluate(records, parseAbsent(*absent))
		results[d.name] = r
		if r.Ratio == nil {
			missing++
		}
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*out, append(data, '\n'), 0o644); err != nil {
		return err
	}
	if err := printTable(wanted, results); err != nil {
		return err
	}
	if missing > 0 {
		fmt.Printf("%d of %d metrics have no ratio\n", missing, len(wanted))
	}
	return nil
}

func chosen(only string) ([]definition, error) {
	if only == "" {
		return definitions, nil
	}
	var wanted []definition
	for _, name := range strings.Split(only, ",") {
		found := false
		for _, d := range definitions {
			if d.name == name {
				wanted = append(wanted, d)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no metric %q", name)
		}
	}
	return wanted, nil
}

func commands(wanted []definition) []string {
	var list []string
	seen := map[string]bool{}
	for _, d := range wanted {
		if !seen[d.command] {
			seen[d.command] = true
			list = append(list, d.command)
		}
	}
	return list
}

func readRecords(dir string) ([]record, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*-*-*.json"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	var records []record
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		records = append(records, r)
	}
	return records, nil
}

func parseAbsent(text string) map[string]string {
	absent := map[string]string{}
	for _, part := range strings.Split(text, ";") {
		if name, reason, ok := strings.Cut(part, "="); ok {
			absent[name] = reason
		}
	}
	return absent
}

// value pools one runtime's samples of one metric; an error says why there are none.
func (d *definition) value(records []record, runtime string, absent map[string]string) (float64, int, error) {
	if reason := absent[runtime]; reason != "" {
		return 0, 0, errors.New(reason)
	}
	var samples []float64
	reason := "not measured"
	for _, r := range records {
		if r.Runtime != runtime {
			continue
		}
		samples = append(samples, r.Samples[d.samples]...)
		if text := r.Missing[d.samples]; text != "" {
			reason = text
		}
	}
	if len(samples) == 0 {
		return 0, 0, errors.New(reason)
	}
	return quantile(samples, d.q), len(samples), nil
}

func (d *definition) evaluate(records []record, absent map[string]string) result {
	res := result{Unit: d.unit}
	var reasons []string
	counts := []int{}
	for _, side := range []struct {
		name  string
		where **float64
	}{{"casemate", &res.Casemate}, {"peer", &res.Peer}} {
		v, n, err := d.value(records, side.name, absent)
		if err != nil {
			reasons = append(reasons, side.name+": "+err.Error())
			continue
		}
		*side.where = &v
		counts = append(counts, n)
	}
	sort.Ints(counts)
	if len(counts) > 0 {
		res.N = counts[0]
	}
	if res.Casemate != nil && res.Peer != nil && *res.Peer > 0 {
		ratio := *res.Casemate / *res.Peer
		res.Ratio = &ratio
	}
	res.Reason = strings.Join(reasons, "; ")
	return res
}

func printTable(wanted []definition, results map[string]result) error {
	show := func(v *float64, format string) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf(format, *v)
	}
	w := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "metric\tcasemate\tpeer\tratio\tn\tunit\t")
	for _, d := range wanted {
		r := results[d.name]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t\n", d.name, show(r.Casemate, "%.2f"), show(r.Peer, "%.2f"),
			show(r.Ratio, "%.3f"), r.N, r.Unit)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, d := range wanted {
		if reason := results[d.name].Reason; reason != "" {
			fmt.Printf("%s: %s\n", d.name, reason)
		}
	}
	return nil
}
