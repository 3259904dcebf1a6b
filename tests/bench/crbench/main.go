// SPDX-License-Identifier: Apache-2.0

// crbench is the load generator of `make bench`: it speaks CRI to one runtime's socket, times each
// call with the monotonic clock in this process, and writes every sample to a JSON file. It knows
// nothing of containerd or casemated; what it needs to know of a runtime comes in by flags. Samples
// are of two kinds, milliseconds and MiB.
//
//	crbench latency|exec|pull|pss|list [flags]   measure, write --out
//	crbench report [flags]                       turn the samples of many runs into results.json and a table
//
// Everything that a measurement makes carries the label of its run and is removed when it ends,
// however it ends: the clean-up has a context of its own, which neither a failure nor an interrupt
// cancels.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"syscall"
	"time"
)

// options are the flags of the measuring subcommands.
type options struct {
	socket      string
	runtime     string
	out         string
	image       string
	cgroup      string
	n           int
	warmup      int
	pods        int
	containers  int
	daemonPID   int
	settle      time.Duration
	timeout     time.Duration
	registryLog string
	blobs       int
}

// record is what one run of one subcommand leaves behind: raw samples by metric, and why others are
// missing.
type record struct {
	Runtime string               `json:"runtime"`
	Command string               `json:"command"`
	Started time.Time            `json:"started"`
	Options map[string]int       `json:"options"`
	Samples map[string][]float64 `json:"samples"`
	Missing map[string]string    `json:"missing,omitempty"`
	Notes   []string             `json:"notes,omitempty"`
}

func (r *record) add(metric string, value float64) {
	r.Samples[metric] = append(r.Samples[metric], value)
}

func (r *record) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// measurement is one subcommand: the metrics that it fills, and how.
type measurement struct {
	metrics []string
	run     func(context.Context, *client, *options, *record) error
}

var measurements = map[string]measurement{
	"latency": {[]string{"pod_create", "pod_stop", "pod_remove", "container_create", "container_start", "container_stop",
		"container_remove", "lifecycle"}, runLatency},
	"exec": {[]string{"exec_true"}, runExec},
	"pull": {[]string{"pull_150mb"}, runPull},
	"pss":  {[]string{"idle_pod_pss", "runtime_pss"}, runPSS},
	"list": {[]string{"list_500"}, runList},
}

func names() []string {
	var all []string
	for name := range measurements {
		all = append(all, name)
	}
	sort.Strings(all)
	return append(all, "report")
}

func measure(name string, m measurement, args []string) error {
	var o options
	fs := flag.NewFlagSet(name, flag.ExitOnError)
	fs.StringVar(&o.socket, "socket", "", "the runtime's CRI socket")
	fs.StringVar(&o.runtime, "runtime", "", "name of the runtime in the records: casemate or peer")
	fs.StringVar(&o.out, "out", "", "file for the samples")
	fs.StringVar(&o.image, "image", "", "image of the containers, or the one to pull")
	fs.StringVar(&o.cgroup, "cgroup-parent", "", "each pod gets a cgroup of its own below this one")
	fs.IntVar(&o.n, "n", 20, "measured repetitions")
	fs.IntVar(&o.warmup, "warmup", 2, "repetitions before those, not counted")
	fs.IntVar(&o.pods, "pods", 100, "pods (pss), pods that share the containers (list)")
	fs.IntVar(&o.containers, "containers", 500, "containers (list)")
	fs.IntVar(&o.daemonPID, "daemon-pid", 0, "process id of the runtime's daemon (pss)")
	fs.DurationVar(&o.settle, "settle", 3*time.Second, "idle time before memory is read (pss)")
	fs.DurationVar(&o.timeout, "timeout", 2*time.Minute, "limit of one call")
	fs.StringVar(&o.registryLog, "registry-log", "", "log that proves that blobs were fetched (pull)")
	fs.IntVar(&o.blobs, "blobs", 0, "blobs that each pull must fetch (pull)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.socket == "" || o.runtime == "" || o.out == "" {
		return errors.New("--socket, --runtime and --out are needed")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	r := &record{Runtime: o.runtime, Command: name, Started: time.Now().UTC(), Samples: map[string][]float64{},
		Missing: map[string]string{}, Options: map[string]int{"n": o.n, "warmup": o.warmup, "pods": o.pods,
			"containers": o.containers}}
	err := connectAndRun(ctx, m, &o, r)
	for _, metric := range m.metrics {
		if len(r.Samples[metric]) == 0 && r.Missing[metric] == "" {
			r.Missing[metric] = fmt.Sprintf("%s: %v", name, err)
		}
	}
	if err != nil {
		r.Notes = append(r.Notes, err.Error())
	}
	return errors.Join(err, r.write(o.out))
}

func connectAndRun(ctx context.Context, m measurement, o *options, r *record) error {
	c, err := dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.close()
	err = m.run(ctx, c, o, r)
	return errors.Join(err, c.cleanup())
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintf(os.Stderr, "usage: crbench %v [flags]\n", names())
		os.Exit(2)
	}
	name, args := os.Args[1], os.Args[2:]
	var err error
	if m, ok := measurements[name]; ok {
		err = measure(name, m, args)
	} else if name == "report" {
		err = report(args)
	} else {
		err = fmt.Errorf("unknown subcommand %q; there are %v", name, names())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "crbench %s: %v\n", name, err)
		os.Exit(1)
	}
}
