// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"
)

// definition says how a metric of results.json comes out of samples, and what it is held against.
type definition struct {
	name    string
	samples string
	q       float64
	unit    string
	command string
	// Whose samples stand in the column "peer"; empty: the peer's, under the same name.
	reference, referenceSamples string
	mean                        bool // of the samples, instead of the quantile
	// What has to be subtracted from each side's value: a second metric's median.
	less string
	// The targets, as the issues of this project name them; 0: none.
	ratio, most float64
	more        bool // a larger figure is the better one
	what        string
}

// The reference that a value may have besides the peer.
const bareQEMU = "qemu"

var definitions = []definition{
	{name: "pod_create_p50", samples: "pod_create", q: 0.50, unit: "ms", command: "latency", ratio: 1, what: "RunPodSandbox"},
	{name: "pod_create_p95", samples: "pod_create", q: 0.95, unit: "ms", command: "latency", ratio: 1, what: "RunPodSandbox"},
	{name: "pods_made_ahead", samples: "made_ahead", mean: true, unit: "%", command: "latency",
		what: "of those pods, the share that found a machine made ahead"},
	{name: "pod_create_rested_p50", samples: "pod_create_rested", q: 0.50, unit: "ms", command: "rested", ratio: 1,
		what: "RunPodSandbox, 2.5 s after the pod before"},
	{name: "pod_create_rested_p95", samples: "pod_create_rested", q: 0.95, unit: "ms", command: "rested", ratio: 1,
		what: "RunPodSandbox, 2.5 s after the pod before"},
	{name: "pod_create_no_spares_p50", samples: "pod_create_no_spares", q: 0.50, unit: "ms", command: "nospares",
		reference: "peer", referenceSamples: "pod_create", what: "RunPodSandbox with `spares = 0`"},
	{name: "pod_stop_p50", samples: "pod_stop", q: 0.50, unit: "ms", command: "latency", what: "StopPodSandbox"},
	{name: "pod_remove_p50", samples: "pod_remove", q: 0.50, unit: "ms", command: "latency", what: "RemovePodSandbox"},
	{name: "container_create_p50", samples: "container_create", q: 0.50, unit: "ms", command: "latency",
		what: "CreateContainer"},
	{name: "container_start_p50", samples: "container_start", q: 0.50, unit: "ms", command: "latency",
		what: "StartContainer"},
	{name: "container_create_plus_start", samples: "container_create_plus_start", q: 0.50, unit: "ms", command: "latency",
		ratio: 1, what: "CreateContainer and StartContainer"},
	{name: "container_create_plus_start_rested", samples: "container_create_plus_start_rested", q: 0.50, unit: "ms",
		command: "rested", ratio: 1, what: "CreateContainer and StartContainer at once in such a pod"},
	{name: "container_create_plus_start_no_spares", samples: "container_create_plus_start_no_spares", q: 0.50, unit: "ms",
		command: "nospares", reference: "peer", referenceSamples: "container_create_plus_start",
		what: "CreateContainer and StartContainer with `spares = 0`"},
	{name: "container_stop_p50", samples: "container_stop", q: 0.50, unit: "ms", command: "latency", what: "StopContainer"},
	{name: "container_remove_p50", samples: "container_remove", q: 0.50, unit: "ms", command: "latency",
		what: "RemoveContainer"},
	{name: "exec_true_p50", samples: "exec_true", q: 0.50, unit: "ms", command: "exec", ratio: 0.3, what: "ExecSync of true"},
	{name: "lifecycle_p50", samples: "lifecycle", q: 0.50, unit: "ms", command: "latency", ratio: 1,
		what: "pod and container up and down, all seven calls"},
	{name: "lifecycle_rested_p50", samples: "lifecycle_rested", q: 0.50, unit: "ms", command: "rested", ratio: 1,
		what: "such a pod and its container up and down, all seven calls"},
	{name: "lifecycle_no_spares_p50", samples: "lifecycle_no_spares", q: 0.50, unit: "ms", command: "nospares",
		reference: "peer", referenceSamples: "lifecycle", what: "pod and container up and down with `spares = 0`"},
	{name: "pods20_parallel", samples: "pods20_parallel", q: 0.50, unit: "ms", command: "parallel", ratio: 1.2,
		what: "20 pods asked for at once, until all are ready"},
	{name: "clone_agent_vs_coldboot", samples: "clone_agent", q: 0.50, unit: "ms", command: "clone", reference: bareQEMU,
		referenceSamples: "cold_boot", ratio: 0.15,
		what: "machine's start until its agent answers, against a bare QEMU that boots the same kernel"},
	{name: "pull_150mb", samples: "pull_150mb", q: 0.50, unit: "ms", command: "pull", ratio: 0.7,
		what: "PullImage of 150 MB of gzip in ten layers"},
	{name: "second_image_9_of_10", samples: "second_image_9_of_10", q: 0.50, unit: "ms", command: "pull",
		what: "PullImage of an image that shares nine of the ten"},
	{name: "daemon_rss_peak_pull", samples: "daemon_rss_peak_pull", q: 1, unit: "MiB", command: "pull", most: 40,
		what: "most resident memory of the daemon during a pull"},
	{name: "empty_pod_pss", samples: "empty_pod_pss", q: 0.50, unit: "MiB", command: "density", most: 35,
		what: "a pod's processes, no container in it yet, among 100"},
	{name: "idle_pod_pss", samples: "idle_pod_pss", q: 0.50, unit: "MiB", command: "density", most: 35,
		what: "a pod's processes, one idle container in it, among 100"},
	{name: "runtime_pss_100_pods", samples: "runtime_pss", q: 0.50, unit: "MiB", command: "density",
		what: "everything with 100 pods"},
	{name: "daemon_pss_100_pods", samples: "daemon_pss", q: 0.50, unit: "MiB", command: "density", most: 30,
		what: "the daemon with 100 pods"},
	{name: "daemon_idle_cpu_100_pods", samples: "daemon_idle_cpu", q: 0.50, unit: "%", command: "density", most: 1,
		what: "of one CPU, by the daemon with 100 idle pods"},
	{name: "list_pods_100_p99", samples: "list_pods", q: 0.99, unit: "ms", command: "density", most: 5,
		what: "ListPodSandbox with 100 pods"},
	{name: "list_containers_100_p99", samples: "list_containers", q: 0.99, unit: "ms", command: "density", most: 5,
		what: "ListContainers with 100 pods"},
	{name: "list_500_p99", samples: "list_500", q: 0.99, unit: "ms", command: "list", what: "ListContainers with 500 containers"},
	{name: "net_host_to_pod", samples: "net_host_to_pod", q: 0.50, unit: "Mbit/s", command: "network", more: true,
		what: "TCP stream, host to pod (more is better)"},
	{name: "net_pod_to_host", samples: "net_pod_to_host", q: 0.50, unit: "Mbit/s", command: "network", more: true,
		what: "TCP stream, pod to host (more is better)"},
	{name: "net_pod_to_pod", samples: "net_pod_to_pod", q: 0.50, unit: "Mbit/s", command: "network", more: true,
		what: "TCP stream, pod to pod (more is better)"},
	{name: "net_host_pod_rr", samples: "net_host_pod_rr", q: 0.50, unit: "µs", command: "network",
		what: "TCP request and answer of one byte, host and pod"},
	{name: "net_pod_pod_rr", samples: "net_pod_pod_rr", q: 0.50, unit: "µs", command: "network",
		what: "TCP request and answer of one byte, two pods"},
	{name: "cni_add_p50", samples: "cni_add", q: 0.50, unit: "ms", command: "plugins",
		what: "the network plugins by themselves, without a runtime"},
	{name: "network_adds_to_pod_create", samples: "pod_create_rested", q: 0.50, unit: "ms", command: "loopback",
		less: "pod_create_loopback", what: "RunPodSandbox with the network less without it, 2.5 s after the pod before"},
}

// result is one metric of results.json. A value that was not measured is null, and then reason says
// why. peer is what the metric is held against: the peer, or for some a reference that what names.
type result struct {
	Casemate *float64 `json:"casemate"`
	Peer     *float64 `json:"peer"`
	Ratio    *float64 `json:"ratio"`
	Unit     string   `json:"unit"`
	N        int      `json:"n"`
	What     string   `json:"what"`
	Target   string   `json:"target,omitempty"`
	Met      *bool    `json:"met,omitempty"`
	Measured string   `json:"measured,omitempty"`
	Commit   string   `json:"commit,omitempty"`
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
	page := fs.String("page", "", "folder that gets a page with tables and plots")
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
	if *page != "" {
		return writePage(*page, *raw, wanted, results, records)
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

// commands lists what has to be run for metrics. A difference needs the run that it is a difference
// to as well.
func commands(wanted []definition) []string {
	var list []string
	add := func(command string) {
		if !slices.Contains(list, command) {
			list = append(list, command)
		}
	}
	for _, d := range wanted {
		switch d.command {
		case "clone":
			add("coldboot")
		case "loopback":
			add("rested")
		case "nospares":
			add("latency")
		}
		add(d.command)
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

// pooled is every sample of one metric by one runtime; an error says why there is none.
func pooled(records []record, runtime, metric string) ([]float64, error) {
	var samples []float64
	reason := "not measured"
	for _, r := range records {
		if r.Runtime != runtime {
			continue
		}
		samples = append(samples, r.Samples[metric]...)
		if text := r.Missing[metric]; text != "" {
			reason = text
		}
	}
	if len(samples) == 0 {
		return nil, errors.New(reason)
	}
	return samples, nil
}

// value is one side of a metric. What a runtime that was left out this time has from another run stays.
func (d *definition) value(records []record, runtime string, absent map[string]string) (float64, int, error) {
	metric := d.samples
	if runtime == d.reference {
		metric = d.referenceSamples
	}
	samples, err := pooled(records, runtime, metric)
	if err != nil && absent[runtime] != "" {
		return 0, 0, errors.New(absent[runtime])
	}
	if err != nil {
		return 0, 0, err
	}
	value := quantile(samples, d.q)
	if d.mean {
		value = mean(samples)
	}
	if d.less != "" {
		others, err := pooled(records, runtime, d.less)
		if err != nil {
			return 0, 0, err
		}
		value -= quantile(others, 0.5)
		return value, min(len(samples), len(others)), nil
	}
	return value, len(samples), nil
}

func mean(samples []float64) float64 {
	sum := 0.0
	for _, v := range samples {
		sum += v
	}
	return sum / float64(len(samples))
}

func (d *definition) evaluate(records []record, absent map[string]string) result {
	res := result{Unit: d.unit, What: d.what}
	reference := d.reference
	if reference == "" {
		reference = "peer"
	}
	var reasons []string
	counts := []int{}
	for _, side := range []struct {
		name  string
		where **float64
	}{{"casemate", &res.Casemate}, {reference, &res.Peer}} {
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
	d.judge(&res)
	res.Measured, res.Commit = d.origin(records)
	res.Reason = strings.Join(reasons, "; ")
	return res
}

// judge holds the figures against the target, where there is one.
func (d *definition) judge(res *result) {
	var met bool
	switch {
	case d.ratio > 0:
		res.Target = fmt.Sprintf("≤ %gx", d.ratio)
		if res.Ratio == nil {
			return
		}
		met = *res.Ratio <= d.ratio
	case d.most > 0:
		res.Target = fmt.Sprintf("≤ %g %s", d.most, d.unit)
		if res.Casemate == nil {
			return
		}
		met = *res.Casemate <= d.most
	default:
		return
	}
	res.Met = &met
}

// origin is when and of which commit the newest record of a metric is.
func (d *definition) origin(records []record) (string, string) {
	var newest time.Time
	commit := ""
	for _, r := range records {
		if r.Runtime == "casemate" && len(r.Samples[d.samples]) > 0 && r.Started.After(newest) {
			newest, commit = r.Started, r.Commit
		}
	}
	if newest.IsZero() {
		return "", ""
	}
	return newest.Format(time.RFC3339), commit
}

func show(v *float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

func verdict(r *result) string {
	switch {
	case r.Target == "":
		return ""
	case r.Met == nil:
		return r.Target + " ?"
	case *r.Met:
		return r.Target + " met"
	}
	return r.Target + " MISSED"
}

func printTable(wanted []definition, results map[string]result) error {
	w := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "metric\tcasemate\tpeer\tratio\tn\tunit\ttarget\t")
	for _, d := range wanted {
		r := results[d.name]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t\n", d.name, show(r.Casemate, "%.2f"), show(r.Peer, "%.2f"),
			show(r.Ratio, "%.3f"), r.N, r.Unit, verdict(&r))
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
