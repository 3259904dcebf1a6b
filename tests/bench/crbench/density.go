// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runDensity fills the node with pods that run one idle container each, and then looks: what they
// and the daemon weigh, what the daemon does while nothing happens, how long lists take. What
// belongs to a pod is found by processes.ofPod.
func runDensity(ctx context.Context, c *client, o *options, r *record) error {
	if o.daemonPID <= 0 {
		return errors.New("--daemon-pid is needed")
	}
	if o.pods != 100 {
		defer r.rename(o.pods, "runtime_pss", "daemon_pss", "daemon_idle_cpu", "list_pods", "list_containers")
	}
	if err := c.pull(ctx); err != nil {
		return err
	}
	pods, err := c.fill(ctx, o)
	if err != nil {
		return err
	}
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	if err := weighPods(pods, o, r, "empty_pod_pss", nil); err != nil {
		return err
	}
	if err := c.startContainers(ctx, pods, o); err != nil {
		return err
	}
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	if err := weigh(pods, o, r); err != nil {
		return err
	}
	cpu, err := idleCPU(ctx, o.daemonPID, o.window)
	if err != nil {
		return err
	}
	r.add("daemon_idle_cpu", cpu)
	return c.timeLists(ctx, o, r)
}

// fill makes pods until there are enough, or the time of the subcommand is over.
func (c *client) fill(ctx context.Context, o *options) ([]*pod, error) {
	var pods []*pod
	for range o.pods {
		if o.isOver() {
			return nil, fmt.Errorf("only %d of %d pods within %v", len(pods), o.pods, o.limit)
		}
		p, _, err := c.runPod(ctx)
		if err != nil {
			return nil, fmt.Errorf("pod %d of %d: %w", len(pods)+1, o.pods, err)
		}
		pods = append(pods, p)
	}
	return pods, c.allReady(ctx, len(pods))
}

// startContainers starts one container in each pod.
func (c *client) startContainers(ctx context.Context, pods []*pod, o *options) error {
	for i, p := range pods {
		if o.isOver() {
			return fmt.Errorf("only %d of %d containers within %v", i, len(pods), o.limit)
		}
		id, _, err := c.createContainer(ctx, p)
		if err == nil {
			_, err = c.startContainer(ctx, id)
		}
		if err != nil {
			return fmt.Errorf("container %d of %d: %w", i+1, len(pods), err)
		}
	}
	return nil
}

// allReady: the runtime lists so many pods of this run, all ready.
func (c *client) allReady(ctx context.Context, n int) error {
	reply, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{runLabel: c.runID},
		State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}})
	if err != nil {
		return err
	}
	if len(reply.GetItems()) != n {
		return fmt.Errorf("%d of %d pods are ready", len(reply.GetItems()), n)
	}
	return nil
}

// weighPods adds what each pod's processes occupy to a metric, and their ids to all.
func weighPods(pods []*pod, o *options, r *record, metric string, all map[int]bool) error {
	table, err := readProcesses()
	if err != nil {
		return err
	}
	for _, p := range pods {
		own := table.ofPod(p, o.daemonPID)
		if len(own) == 0 {
			return fmt.Errorf("no process of pod %s found", p.id)
		}
		mib, err := pssMiB(own)
		if err != nil {
			return err
		}
		r.add(metric, mib)
		for pid := range own {
			if all != nil {
				all[pid] = true
			}
		}
	}
	return nil
}

func weigh(pods []*pod, o *options, r *record) error {
	table, err := readProcesses()
	if err != nil {
		return err
	}
	all := table.descendants(map[int]bool{o.daemonPID: true})
	if err := weighPods(pods, o, r, "idle_pod_pss", all); err != nil {
		return err
	}
	r.Notes = append(r.Notes, table.describe(table.ofPod(pods[0], o.daemonPID)))
	daemon, err := pssMiB(map[int]bool{o.daemonPID: true})
	if err != nil {
		return err
	}
	r.add("daemon_pss", daemon)
	total, err := pssMiB(all)
	if err != nil {
		return err
	}
	r.add("runtime_pss", total)
	return nil
}

// idleCPU is how much of one CPU a process used over a time in which nobody asked it anything, in percent.
func idleCPU(ctx context.Context, pid int, window time.Duration) (float64, error) {
	before, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := sleep(ctx, window); err != nil {
		return 0, err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	return 100 * float64(after-before) / float64(time.Since(start)), nil
}

// timeLists times both lists with all those pods there.
func (c *client) timeLists(ctx context.Context, o *options, r *record) error {
	for _, list := range []struct {
		metric string
		call   func(context.Context) (int, error)
	}{
		{"list_pods", func(ctx context.Context) (int, error) {
			reply, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
			return len(reply.GetItems()), err
		}},
		{"list_containers", func(ctx context.Context) (int, error) {
			reply, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
			return len(reply.GetContainers()), err
		}},
	} {
		for i := -5; i < o.n; i++ {
			got := 0
			ms, err := c.timed(ctx, list.metric, func(ctx context.Context) (err error) {
				got, err = list.call(ctx)
				return err
			})
			if err != nil {
				return err
			}
			if got < o.pods {
				return fmt.Errorf("%s has %d of %d", list.metric, got, o.pods)
			}
			if i >= 0 {
				r.add(list.metric, ms)
			}
		}
	}
	return nil
}

// runParallel asks for pods all at once and waits until every one is ready.
func runParallel(ctx context.Context, c *client, o *options, r *record) error {
	if o.pods != 20 {
		defer r.rename(o.pods, "pods20_parallel")
	}
	for i := -o.warmup; o.more(i, o.n); i++ {
		ms, err := c.together(ctx, o.pods)
		if err != nil {
			return err
		}
		if i >= 0 {
			r.add("pods20_parallel", ms)
		}
		if err := c.cleanup(); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) together(ctx context.Context, n int) (float64, error) {
	pods := make([]*pod, n)
	for i := range pods {
		pods[i] = c.newPod()
	}
	failures := make([]error, n)
	var wait sync.WaitGroup
	start := time.Now()
	for i, p := range pods {
		wait.Add(1)
		go func() {
			defer wait.Done()
			_, failures[i] = c.run(ctx, p)
		}()
	}
	wait.Wait()
	ms := float64(time.Since(start)) / float64(time.Millisecond)
	if err := errors.Join(failures...); err != nil {
		return 0, err
	}
	return ms, c.allReady(ctx, n)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
