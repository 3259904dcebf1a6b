// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sort"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runLatency takes pods with one container up and down, one after another, and times every call.
// The lifecycle is the sum of the seven calls of one pod: what a client waits for in all.
func runLatency(ctx context.Context, c *client, o *options, r *record) error {
	if err := c.pull(ctx); err != nil {
		return err
	}
	for i := -o.warmup; i < o.n; i++ {
		took, err := c.upAndDown(ctx)
		if err != nil {
			return fmt.Errorf("pod %d of %d: %w", i+1, o.n, err)
		}
		if i < 0 {
			continue
		}
		total := 0.0
		for metric, ms := range took {
			r.add(metric, ms)
			total += ms
		}
		r.add("lifecycle", total)
	}
	return nil
}

func (c *client) upAndDown(ctx context.Context) (map[string]float64, error) {
	took := map[string]float64{}
	p, ms, err := c.runPod(ctx)
	if err != nil {
		return nil, err
	}
	took["pod_create"] = ms
	id, ms, err := c.createContainer(ctx, p)
	if err != nil {
		return nil, err
	}
	took["container_create"] = ms
	for _, step := range []struct {
		metric string
		call   func(context.Context, string) (float64, error)
		id     string
	}{
		{"container_start", c.startContainer, id},
		{"container_stop", c.stopContainer, id},
		{"container_remove", c.removeContainer, id},
		{"pod_stop", c.stopPod, p.id},
		{"pod_remove", c.removePod, p.id},
	} {
		if took[step.metric], err = step.call(ctx, step.id); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// runExec times ExecSync of `true` in one running container.
func runExec(ctx context.Context, c *client, o *options, r *record) error {
	if err := c.pull(ctx); err != nil {
		return err
	}
	_, id, err := c.startedPod(ctx)
	if err != nil {
		return err
	}
	for i := -o.warmup; i < o.n; i++ {
		code := int32(-1)
		ms, err := c.timed(ctx, "ExecSync", func(ctx context.Context) error {
			reply, err := c.runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}, Timeout: 30})
			code = reply.GetExitCode()
			return err
		})
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("ExecSync of true: exit code %d", code)
		}
		if i >= 0 {
			r.add("exec_true", ms)
		}
	}
	return nil
}

// runPull pulls and removes the same image again and again. A pull counts only if the registry's
// log shows that it fetched every blob: a runtime that kept them would look fast.
func runPull(ctx context.Context, c *client, o *options, r *record) error {
	spec := &cri.ImageSpec{Image: o.image}
	remove := func(ctx context.Context) error {
		_, err := c.image.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec})
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := remove(last); err != nil {
			r.Notes = append(r.Notes, "clean-up: RemoveImage: "+err.Error())
		}
	}()
	for i := -o.warmup; i < o.n; i++ {
		if _, err := c.timed(ctx, "RemoveImage", remove); err != nil {
			return err
		}
		before, err := blobRequests(o)
		if err != nil {
			return err
		}
		ms, err := c.timed(ctx, "PullImage", func(ctx context.Context) error {
			_, err := c.image.PullImage(ctx, &cri.PullImageRequest{Image: spec})
			return err
		})
		if err != nil {
			return err
		}
		after, err := blobRequests(o)
		if err != nil {
			return err
		}
		if after-before < o.blobs {
			return fmt.Errorf("a pull fetched %d blobs of %d: the image was not gone", after-before, o.blobs)
		}
		if i >= 0 {
			r.add("pull_150mb", ms)
		}
	}
	return nil
}

// blobRequests counts the blob downloads that the registry has logged.
func blobRequests(o *options) (int, error) {
	if o.registryLog == "" {
		return 0, nil
	}
	data, err := os.ReadFile(o.registryLog)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, line := range bytes.Split(data, []byte("\n")) {
		if bytes.Contains(line, []byte("response completed")) && bytes.Contains(line, []byte("http.request.method=GET")) &&
			bytes.Contains(line, []byte("/blobs/sha256:")) {
			n++
		}
	}
	return n, nil
}

// runPSS reads the memory of pods that run one idle container each. What belongs to a pod is found
// by belongsToPods.
func runPSS(ctx context.Context, c *client, o *options, r *record) error {
	if o.daemonPID <= 0 {
		return fmt.Errorf("--daemon-pid is needed")
	}
	if err := c.pull(ctx); err != nil {
		return err
	}
	var pods []*pod
	for range o.pods {
		p, _, err := c.startedPod(ctx)
		if err != nil {
			return fmt.Errorf("pod %d of %d: %w", len(pods)+1, o.pods, err)
		}
		pods = append(pods, p)
	}
	select {
	case <-time.After(o.settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	table, err := readProcesses()
	if err != nil {
		return err
	}
	all := table.descendants(map[int]bool{o.daemonPID: true})
	for _, p := range pods {
		own := table.ofPod(p, o.daemonPID)
		if len(own) == 0 {
			return fmt.Errorf("no process of pod %s found", p.id)
		}
		mib, err := pssMiB(own)
		if err != nil {
			return err
		}
		r.add("idle_pod_pss", mib)
		for pid := range own {
			all[pid] = true
		}
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
	if o.pods == 100 {
		r.add("runtime_pss", total)
	} else {
		r.add(fmt.Sprintf("runtime_pss_of_%d", o.pods), total)
		r.Missing["runtime_pss"] = fmt.Sprintf("measured with %d pods, not 100", o.pods)
	}
	return nil
}

// runList times ListContainers when there are many records: containers that were created and never
// started, spread over a few pods.
func runList(ctx context.Context, c *client, o *options, r *record) error {
	if err := c.pull(ctx); err != nil {
		return err
	}
	var pods []*pod
	for range o.pods {
		p, _, err := c.runPod(ctx)
		if err != nil {
			return err
		}
		pods = append(pods, p)
	}
	for i := range o.containers {
		if _, _, err := c.createContainer(ctx, pods[i%len(pods)]); err != nil {
			return fmt.Errorf("container %d of %d: %w", i+1, o.containers, err)
		}
	}
	metric := "list_500"
	if o.containers != 500 {
		metric = fmt.Sprintf("list_%d", o.containers)
		r.Missing["list_500"] = fmt.Sprintf("measured with %d containers, not 500", o.containers)
	}
	for i := -o.warmup; i < o.n; i++ {
		got := 0
		ms, err := c.timed(ctx, "ListContainers", func(ctx context.Context) error {
			reply, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
			got = len(reply.GetContainers())
			return err
		})
		if err != nil {
			return err
		}
		if got < o.containers {
			return fmt.Errorf("ListContainers has %d of %d", got, o.containers)
		}
		if i >= 0 {
			r.add(metric, ms)
		}
	}
	return nil
}

// quantile of samples by linear interpolation between the nearest ranks; samples must not be empty.
func quantile(samples []float64, q float64) float64 {
	s := append([]float64(nil), samples...)
	sort.Float64s(s)
	at := q * float64(len(s)-1)
	low := int(at)
	if low+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[low] + (at-float64(low))*(s[low+1]-s[low])
}
