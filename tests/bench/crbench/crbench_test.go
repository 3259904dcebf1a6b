// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestQuantile(t *testing.T) {
	samples := []float64{40, 10, 30, 20}
	for q, want := range map[float64]float64{0: 10, 0.5: 25, 1: 40} {
		if got := quantile(samples, q); got != want {
			t.Errorf("quantile %v is %v, not %v", q, got, want)
		}
	}
	if got := quantile([]float64{7}, 0.99); got != 7 {
		t.Errorf("quantile of one sample is %v", got)
	}
	if samples[0] != 40 {
		t.Error("quantile sorted its argument")
	}
}

func TestProcessesOfPod(t *testing.T) {
	table := processes{
		1:  {parent: 0, name: "init"},
		10: {parent: 1, name: "daemon", cmdline: "daemon --pod abc"},
		20: {parent: 1, name: "shim", cmdline: "shim -id abc -namespace x"},
		21: {parent: 20, name: "pause"},
		22: {parent: 21, name: "grandchild"},
		30: {parent: 10, name: "vmm", cgroup: "4:memory:/bench/pod-1\n3:cpu:/\n"},
		31: {parent: 10, name: "vmm", cgroup: "4:memory:/bench/pod-11\n"},
		40: {parent: 1, name: "shim", cmdline: "shim -id def"},
	}
	got := slices.Sorted(maps.Keys(table.ofPod(&pod{id: "abc", cgroup: "/bench/pod-1"}, 10)))
	if want := []int{20, 21, 22, 30}; !slices.Equal(got, want) {
		t.Errorf("processes of the pod: %v, not %v", got, want)
	}
	all := slices.Sorted(maps.Keys(table.descendants(map[int]bool{10: true})))
	if want := []int{10, 30, 31}; !slices.Equal(all, want) {
		t.Errorf("descendants of the daemon: %v, not %v", all, want)
	}
}

func TestReadProcessesFindsThisOne(t *testing.T) {
	table, err := readProcesses()
	if err != nil {
		t.Fatal(err)
	}
	if table[os.Getpid()].parent != os.Getppid() {
		t.Errorf("parent is %d, not %d", table[os.Getpid()].parent, os.Getppid())
	}
	if mib, err := pssMiB(map[int]bool{os.Getpid(): true}); err != nil || mib <= 0 {
		t.Errorf("memory of this process: %v MiB, %v", mib, err)
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	records := []record{
		{Runtime: "casemate", Command: "latency", Samples: map[string][]float64{"pod_create": {10, 20}}},
		{Runtime: "casemate", Command: "latency", Samples: map[string][]float64{"pod_create": {30}}},
		{Runtime: "peer", Command: "latency", Samples: map[string][]float64{"pod_create": {40, 40}}},
		{Runtime: "peer", Command: "exec", Missing: map[string]string{"exec_true": "exec: broken"}},
	}
	for n, r := range records {
		if err := r.write(filepath.Join(dir, r.Runtime+"-"+string(rune('1'+n))+"-"+r.Command+".json")); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "results.json")
	if err := report([]string{"--raw", dir, "--out", out, "--only", "pod_create_p50,exec_true_p50"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]result
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	create := got["pod_create_p50"]
	if create.Casemate == nil || *create.Casemate != 20 || *create.Peer != 40 || *create.Ratio != 0.5 || create.N != 2 {
		t.Errorf("pod_create_p50: %s", data)
	}
	exec := got["exec_true_p50"]
	if exec.Casemate != nil || exec.Peer != nil || exec.Ratio != nil || exec.N != 0 ||
		!strings.Contains(exec.Reason, "casemate: not measured") || !strings.Contains(exec.Reason, "exec: broken") {
		t.Errorf("exec_true_p50: %s", data)
	}
	if err := report([]string{"--raw", dir, "--out", out, "--only", "nonsense"}); err == nil {
		t.Error("an unknown metric is accepted")
	}
}

func TestSuffixed(t *testing.T) {
	r := record{Samples: map[string][]float64{}, Missing: map[string]string{"gone": "why"}}
	for i := range 100 {
		r.Samples[fmt.Sprint("m", i)] = []float64{float64(i)}
	}
	r.suffixed("_x")
	if len(r.Samples) != 100 || r.Missing["gone_x"] != "why" {
		t.Fatalf("samples %v, missing %v", r.Samples, r.Missing)
	}
	for i := range 100 {
		if v := r.Samples[fmt.Sprintf("m%d_x", i)]; len(v) != 1 || v[0] != float64(i) {
			t.Errorf("m%d_x: %v", i, v)
		}
	}
}
