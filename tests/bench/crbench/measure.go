// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sort"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runLatency takes pods with one container up and down, one after another or with a pause between
// two, and times every call.
// The lifecycle is the sum of the seven calls of one pod: what a client waits for in all.
func runLatency(ctx context.Context, c *client, o *options, r *record) error {
	if err := c.pull(ctx); err != nil {
		return err
	}
	for i := -o.warmup; o.more(i, o.n); i++ {
		if err := sleep(ctx, o.pause); err != nil {
			return err
		}
		took, err := c.upAndDown(ctx)
		if err != nil {
			return fmt.Errorf("pod %d of %d: %w", i+1, o.n, err)
		}
		ahead, known := took["made_ahead"]
		delete(took, "made_ahead")
		if i < 0 {
			continue
		}
		if known {
			r.add("made_ahead", ahead)
		}
		total := 0.0
		for metric, ms := range took {
			r.add(metric, ms)
			total += ms
		}
		r.add("container_create_plus_start", took["container_create"]+took["container_start"])
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
	if ahead, err := c.madeAhead(ctx, p.id); err == nil {
		took["made_ahead"] = ahead
	}
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
	// What the start has left to do in the background is not the command's.
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	for i := -o.warmup; o.more(i, o.n); i++ {
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
// log shows that it fetched every blob: a runtime that kept them would look fast. While the image is
// there, a second one that has all its layers but one is pulled likewise. The most memory that the
// daemon ever had resident meanwhile is a metric too.
func runPull(ctx context.Context, c *client, o *options, r *record) error {
	first := &cri.ImageSpec{Image: o.image}
	defer c.tidyImages(r, o.image, o.second)
	for i := -o.warmup; o.more(i, o.n); i++ {
		if err := c.removeImage(ctx, first); err != nil {
			return err
		}
		if o.daemonPID > 0 {
			if err := resetPeak(o.daemonPID); err != nil {
				return err
			}
		}
		ms, blobs, err := c.pullImage(ctx, first)
		if err != nil {
			return err
		}
		if blobs < o.blobs {
			return fmt.Errorf("a pull fetched %d blobs of %d: the image was not gone", blobs, o.blobs)
		}
		if i < 0 {
			continue
		}
		r.add("pull_150mb", ms)
		if o.daemonPID > 0 {
			mib, err := peakMiB(o.daemonPID)
			if err != nil {
				return err
			}
			r.add("daemon_rss_peak_pull", mib)
		}
	}
	if o.second == "" {
		return nil
	}
	return runSecondImage(ctx, c, o, r)
}

func runSecondImage(ctx context.Context, c *client, o *options, r *record) error {
	second := &cri.ImageSpec{Image: o.second}
	for i := -o.warmup; o.more(i, o.n); i++ {
		if err := c.removeImage(ctx, second); err != nil {
			return err
		}
		ms, blobs, err := c.pullImage(ctx, second)
		if err != nil {
			return err
		}
		if i == 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("the second image cost %d blobs", blobs))
		}
		if i >= 0 {
			r.add("second_image_9_of_10", ms)
		}
	}
	return nil
}

func (c *client) removeImage(ctx context.Context, spec *cri.ImageSpec) error {
	_, err := c.timed(ctx, "RemoveImage", func(ctx context.Context) error {
		_, err := c.image.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec})
		return err
	})
	return err
}

// pullImage returns how long it took and how many blobs the registry gave for it.
func (c *client) pullImage(ctx context.Context, spec *cri.ImageSpec) (float64, int, error) {
	before, err := blobRequests(c.o)
	if err != nil {
		return 0, 0, err
	}
	ms, err := c.timed(ctx, "PullImage", func(ctx context.Context) error {
		_, err := c.image.PullImage(ctx, &cri.PullImageRequest{Image: spec})
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	after, err := blobRequests(c.o)
	return ms, after - before, err
}

// tidyImages removes images whatever has happened.
func (c *client) tidyImages(r *record, images ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	for _, image := range images {
		if image == "" {
			continue
		}
		if err := c.removeImage(ctx, &cri.ImageSpec{Image: image}); err != nil {
			r.Notes = append(r.Notes, "clean-up: "+err.Error())
		}
	}
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
		if o.isOver() {
			return fmt.Errorf("only %d of %d containers within %v", i, o.containers, o.limit)
		}
		if _, _, err := c.createContainer(ctx, pods[i%len(pods)]); err != nil {
			return fmt.Errorf("container %d of %d: %w", i+1, o.containers, err)
		}
	}
	metric := "list_500"
	if o.containers != 500 {
		metric = fmt.Sprintf("list_%d", o.containers)
		r.Missing["list_500"] = fmt.Sprintf("measured with %d containers, not 500", o.containers)
	}
	for i := -o.warmup; o.more(i, o.n); i++ {
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
