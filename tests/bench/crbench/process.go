// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is what /proc tells of one process that matters for telling whose it is.
type process struct {
	parent  int
	name    string
	cmdline string
	cgroup  string
}

type processes map[int]process

// readProcesses takes stock of /proc. The harness runs in a process namespace of its own, so that
// what is seen is the harness, the registry and the runtime, and nothing else of the machine.
func readProcesses() (processes, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	table := processes{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // gone meanwhile
		}
		// The name is in parentheses and may hold any byte; the fields after the last ')' are state and
		// parent.
		open, closing := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		fields := strings.Fields(string(stat[closing+1:]))
		if open < 0 || closing < open || len(fields) < 2 {
			return nil, fmt.Errorf("%s/stat: unexpected %q", dir, stat)
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("%s/stat: %w", dir, err)
		}
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		table[pid] = process{parent: parent, name: string(stat[open+1 : closing]),
			cmdline: string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})), cgroup: string(cgroup)}
	}
	return table, nil
}

// descendants returns roots and all their children, whatever generation.
func (t processes) descendants(roots map[int]bool) map[int]bool {
	found := map[int]bool{}
	for pid := range roots {
		found[pid] = true
	}
	for grew := true; grew; {
		grew = false
		for pid, p := range t {
			if !found[pid] && found[p.parent] {
				found[pid] = true
				grew = true
			}
		}
	}
	return found
}

// ofPod finds the processes that exist for one pod: those whose command line names the pod's id,
// those in the cgroup that the pod was given, and all that these started. The daemon is nobody's. A
// shim names the pod in its arguments and is the parent of the pause and container processes; a VMM
// names it or sits in the pod's cgroup.
func (t processes) ofPod(p *pod, daemon int) map[int]bool {
	roots := map[int]bool{}
	for pid, proc := range t {
		if pid == daemon || pid == os.Getpid() {
			continue
		}
		if strings.Contains(proc.cmdline, p.id) ||
			p.cgroup != "" && (strings.Contains(proc.cgroup, p.cgroup+"/") || strings.Contains(proc.cgroup, p.cgroup+"\n")) {
			roots[pid] = true
		}
	}
	return t.descendants(roots)
}

// describe names the processes of a set, for the record.
func (t processes) describe(set map[int]bool) string {
	var list []string
	for pid := range set {
		list = append(list, t[pid].name)
	}
	sort.Strings(list)
	return "processes of one pod: " + strings.Join(list, ", ")
}

// pssMiB sums the proportional set sizes: pages that processes share count once in all, divided
// among those that map them. Memory that the kernel holds for them (page cache, slabs, page tables)
// is not in it, for either runtime.
func pssMiB(set map[int]bool) (float64, error) {
	total := 0.0
	for pid := range set {
		kib, err := pssKiB(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // gone since the table was read
		}
		if err != nil {
			return 0, err
		}
		total += kib
	}
	return total / 1024, nil
}

func pssKiB(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "Pss:" {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, lines.Err() // none: a kernel thread or a zombie
}

// resetPeak makes the kernel count a process's most resident memory from now on; peakMiB reads it.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

func peakMiB(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

// cpuTime is what all threads of a process have run so far, to the nanosecond (the first number of
// each thread's schedstat).
func cpuTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	total := time.Duration(0)
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended; what it ran is lost, and little
		}
		fields := strings.Fields(string(data))
		if len(fields) == 0 {
			return 0, fmt.Errorf("%s: unexpected %q", name, data)
		}
		ns, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		total += time.Duration(ns)
	}
	if len(files) == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	return total, nil
}
