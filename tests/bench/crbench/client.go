// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	runLabel      = "casemate.test/run"
	messageLimit  = 16 << 20
	connectLimit  = 30 * time.Second
	cleanupLimit  = 5 * time.Minute
	stopTimeoutS  = 10
	benchHostname = "bench"
)

// client is one connection to a runtime, and the memory of what this run made there.
type client struct {
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	image   cri.ImageServiceClient
	o       *options
	runID   string
	serial  int
}

// pod is a sandbox of this run, with what later calls need of it.
type pod struct {
	id     string
	cgroup string
	config *cri.PodSandboxConfig
}

// dial connects and waits until the runtime answers Version.
func dial(ctx context.Context, o *options) (*client, error) {
	conn, err := grpc.NewClient("unix://"+o.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageLimit)))
	if err != nil {
		return nil, err
	}
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	c := &client{conn: conn, runtime: cri.NewRuntimeServiceClient(conn), image: cri.NewImageServiceClient(conn), o: o,
		runID: hex.EncodeToString(id)}
	wait, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	if _, err := c.runtime.Version(wait, &cri.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("no answer on %s: %w", o.socket, err)
	}
	return c, nil
}

func (c *client) close() {
	c.conn.Close()
}

// timed runs one call under the call limit and returns how long it took, in milliseconds.
func (c *client) timed(ctx context.Context, what string, call func(context.Context) error) (float64, error) {
	limited, cancel := context.WithTimeout(ctx, c.o.timeout)
	defer cancel()
	start := time.Now()
	err := call(limited)
	took := float64(time.Since(start)) / float64(time.Millisecond)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return took, nil
}

// pull makes sure that the containers' image is there.
func (c *client) pull(ctx context.Context) error {
	_, err := c.timed(ctx, "PullImage "+c.o.image, func(ctx context.Context) error {
		_, err := c.image.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: c.o.image}})
		return err
	})
	return err
}

// newPod names a pod that does not exist yet.
func (c *client) newPod() *pod {
	c.serial++
	name := fmt.Sprintf("bench-%s-%d", c.runID, c.serial)
	p := &pod{config: &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "bench"},
		Hostname: benchHostname,
		Labels:   map[string]string{runLabel: c.runID},
		Linux:    &cri.LinuxPodSandboxConfig{},
	}}
	if c.o.cgroup != "" {
		p.cgroup = c.o.cgroup + "/" + name
		p.config.Linux.CgroupParent = p.cgroup
	}
	return p
}

// run creates it. Several may be created at once.
func (c *client) run(ctx context.Context, p *pod) (float64, error) {
	return c.timed(ctx, "RunPodSandbox", func(ctx context.Context) error {
		reply, err := c.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.config})
		p.id = reply.GetPodSandboxId()
		return err
	})
}

func (c *client) runPod(ctx context.Context) (*pod, float64, error) {
	p := c.newPod()
	took, err := c.run(ctx, p)
	return p, took, err
}

func (c *client) stopPod(ctx context.Context, id string) (float64, error) {
	return c.timed(ctx, "StopPodSandbox", func(ctx context.Context) error {
		_, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
		return err
	})
}

func (c *client) removePod(ctx context.Context, id string) (float64, error) {
	return c.timed(ctx, "RemovePodSandbox", func(ctx context.Context) error {
		_, err := c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
		return err
	})
}

// createContainer makes a container; without a command its process waits and ends at SIGTERM.
func (c *client) createContainer(ctx context.Context, p *pod, command ...string) (string, float64, error) {
	c.serial++
	if len(command) == 0 {
		command = []string{"/bin/pause"}
	}
	config := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: fmt.Sprintf("c%d", c.serial)},
		Image:    &cri.ImageSpec{Image: c.o.image},
		Command:  command,
		Labels:   map[string]string{runLabel: c.runID},
		Linux:    &cri.LinuxContainerConfig{},
	}
	var id string
	took, err := c.timed(ctx, "CreateContainer", func(ctx context.Context) error {
		reply, err := c.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.id, Config: config,
			SandboxConfig: p.config})
		id = reply.GetContainerId()
		return err
	})
	return id, took, err
}

func (c *client) startContainer(ctx context.Context, id string) (float64, error) {
	return c.timed(ctx, "StartContainer", func(ctx context.Context) error {
		_, err := c.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
		return err
	})
}

func (c *client) stopContainer(ctx context.Context, id string) (float64, error) {
	return c.timed(ctx, "StopContainer", func(ctx context.Context) error {
		_, err := c.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: stopTimeoutS})
		return err
	})
}

func (c *client) removeContainer(ctx context.Context, id string) (float64, error) {
	return c.timed(ctx, "RemoveContainer", func(ctx context.Context) error {
		_, err := c.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
		return err
	})
}

// startedPod is a pod with one running container.
func (c *client) startedPod(ctx context.Context) (*pod, string, error) {
	p, _, err := c.runPod(ctx)
	if err != nil {
		return nil, "", err
	}
	id, _, err := c.createContainer(ctx, p)
	if err != nil {
		return nil, "", err
	}
	_, err = c.startContainer(ctx, id)
	return p, id, err
}

// cleanup removes every pod of this run, containers and all. The pods are asked of the runtime, so
// that one whose creation failed half way, or whose answer never arrived, goes too.
func (c *client) cleanup() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	reply, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{LabelSelector: map[string]string{runLabel: c.runID}}})
	if err != nil {
		return fmt.Errorf("clean-up: ListPodSandbox: %w", err)
	}
	var failed error
	for _, p := range reply.GetItems() {
		if _, err := c.stopPod(ctx, p.GetId()); err != nil {
			failed = errors.Join(failed, fmt.Errorf("clean-up of %s: %w", p.GetId(), err))
		}
		if _, err := c.removePod(ctx, p.GetId()); err != nil {
			failed = errors.Join(failed, fmt.Errorf("clean-up of %s: %w", p.GetId(), err))
		}
	}
	return failed
}
