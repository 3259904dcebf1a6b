// SPDX-License-Identifier: Apache-2.0

// crbench is the load generator of `make bench`: it speaks CRI to one runtime's socket, times each
// call with the monotonic clock in this process, and writes every sample to a JSON file. It knows
// nothing of containerd or casemated; what it needs to know of a runtime comes in by flags. Samples
// are milliseconds, MiB or percent, as the report says.
//
//	crbench latency|exec|pull|… [flags]   measure, write --out
//	crbench report [flags]                turn the samples of many runs into results.json and a table
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
	pause       time.Duration
	timeout     time.Duration
	limit       time.Duration
	window      time.Duration
	registryLog string
	blobs       int
	second      string
	qemu        string
	kernel      string
	initrd      string
	accel       string
	cniConf     string
	cniBin      string
	nettool     string
	suffix      string

	began time.Time
}

// Repetitions that a subcommand makes even when its time is over.
const fewest = 5

// isOver: the time that the subcommand was given has passed.
func (o *options) isOver() bool {
	return o.limit > 0 && time.Since(o.began) > o.limit
}

// more says whether repetition i of n is due. When time is over, few are enough.
func (o *options) more(i, n int) bool {
	return i < n && (i < fewest || !o.isOver())
}

// record is what one run of one subcommand leaves behind: raw samples by metric, and why others are
// missing.
type record struct {
	Runtime string               `json:"runtime"`
	Command string               `json:"command"`
	Started time.Time            `json:"started"`
	Commit  string               `json:"commit,omitempty"`
	Options map[string]int       `json:"options"`
	Samples map[string][]float64 `json:"samples"`
	Missing map[string]string    `json:"missing,omitempty"`
	Notes   []string             `json:"notes,omitempty"`
}

func (r *record) add(metric string, value float64) {
	r.Samples[metric] = append(r.Samples[metric], value)
}

// rename marks metrics whose name says how many pods there are, and there were others.
func (r *record) rename(pods int, metrics ...string) {
	for _, metric := range metrics {
		if samples, ok := r.Samples[metric]; ok {
			r.Samples[fmt.Sprintf("%s_of_%d", metric, pods)] = samples
			delete(r.Samples, metric)
		}
		r.Missing[metric] = fmt.Sprintf("measured with %d pods", pods)
	}
}

// suffixed gives every metric another name, for the same measurement under other circumstances.
func (r *record) suffixed(suffix string) {
	samples, missing := map[string][]float64{}, map[string]string{}
	for metric, values := range r.Samples {
		samples[metric+suffix] = values
	}
	for metric, reason := range r.Missing {
		missing[metric+suffix] = reason
	}
	r.Samples, r.Missing = samples, missing
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

// measurement is one subcommand: the metrics that it fills, and how. Some need no runtime.
type measurement struct {
	metrics []string
	run     func(context.Context, *client, *options, *record) error
	alone   func(context.Context, *options, *record) error
}

var measurements = map[string]measurement{
	"latency": {[]string{"pod_create", "pod_stop", "pod_remove", "container_create", "container_start", "container_stop",
		"container_remove", "container_create_plus_start", "lifecycle"}, runLatency, nil},
	"exec": {[]string{"exec_true"}, runExec, nil},
	"pull": {[]string{"pull_150mb", "second_image_9_of_10", "daemon_rss_peak_pull"}, runPull, nil},
	"density": {[]string{"idle_pod_pss", "runtime_pss", "daemon_pss", "daemon_idle_cpu", "list_pods", "list_containers"},
		runDensity, nil},
	"list":     {[]string{"list_500"}, runList, nil},
	"parallel": {[]string{"pods20_parallel"}, runParallel, nil},
	"clone":    {[]string{"clone_agent"}, runClone, nil},
	"network": {[]string{"net_host_to_pod", "net_pod_to_host", "net_host_pod_rr", "net_pod_to_pod", "net_pod_pod_rr"},
		runNetwork, nil},
	"coldboot": {[]string{"cold_boot"}, nil, runColdBoot},
	"plugins":  {[]string{"cni_add"}, nil, runPlugins},
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
	fs.DurationVar(&o.limit, "limit", 0, "time after which few repetitions are enough; 0: none")
	fs.DurationVar(&o.window, "window", 10*time.Second, "time over which an idle daemon is watched (density)")
	fs.StringVar(&o.registryLog, "registry-log", "", "log that proves that blobs were fetched (pull)")
	fs.IntVar(&o.blobs, "blobs", 0, "blobs that each pull must fetch (pull)")
	fs.DurationVar(&o.pause, "pause", 0, "idle time before each pod (latency)")
	fs.StringVar(&o.second, "second", "", "an image that shares all layers but one with the first (pull)")
	fs.StringVar(&o.qemu, "qemu", "", "QEMU (coldboot)")
	fs.StringVar(&o.kernel, "kernel", "", "the guest's kernel (coldboot)")
	fs.StringVar(&o.initrd, "initrd", "", "the guest's initrd (coldboot)")
	fs.StringVar(&o.accel, "accel", "tcg", "kvm or tcg (coldboot)")
	fs.StringVar(&o.cniConf, "cni-conf", "", "configuration list (plugins)")
	fs.StringVar(&o.cniBin, "cni-bin", "", "folder of the plugins (plugins)")
	fs.StringVar(&o.nettool, "nettool", "", "the program on the host (network)")
	fs.StringVar(&o.suffix, "suffix", "", "appended to the names of all metrics")
	commit := fs.String("commit", "", "what is measured, for the record")
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.began = time.Now()
	if o.socket == "" && m.run != nil || o.runtime == "" || o.out == "" {
		return errors.New("--socket, --runtime and --out are needed")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	r := &record{Runtime: o.runtime, Command: name, Started: time.Now().UTC(), Commit: *commit, Samples: map[string][]float64{},
		Missing: map[string]string{}, Options: map[string]int{"n": o.n, "warmup": o.warmup, "pods": o.pods,
			"containers": o.containers}}
	var err error
	if m.alone != nil {
		err = m.alone(ctx, &o, r)
	} else {
		err = connectAndRun(ctx, m, &o, r)
	}
	for _, metric := range m.metrics {
		if len(r.Samples[metric]) == 0 && r.Missing[metric] == "" {
			r.Missing[metric] = fmt.Sprintf("%s: %v", name, err)
		}
	}
	if err != nil {
		r.Notes = append(r.Notes, err.Error())
	}
	if o.suffix != "" {
		r.suffixed(o.suffix)
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
