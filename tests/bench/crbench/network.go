// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Traffic between the host and a pod and between two pods, by the program nettool (nettool.c) on both
// ends; and what the plugins of the configuration take by themselves, called as the CNI specification
// says, without any runtime: the part of a pod's network that no runtime can save.

const (
	trafficPort    = "5201"
	trafficSeconds = 2
)

// traffic is what nettool prints.
type traffic struct {
	MbitPerS float64 `json:"mbit_per_s"`
	P50us    float64 `json:"p50_us"`
}

// runNetwork needs an image that has nettool as /nettool.
func runNetwork(ctx context.Context, c *client, o *options, r *record) error {
	if o.nettool == "" {
		return errors.New("--nettool is needed")
	}
	if err := c.pull(ctx); err != nil {
		return err
	}
	var addresses, containers []string
	for range 2 {
		p, id, err := c.servingPod(ctx)
		if err != nil {
			return err
		}
		reply, err := c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
		if err != nil {
			return err
		}
		ip := reply.GetStatus().GetNetwork().GetIp()
		if ip == "" {
			return errors.New("the pod has no address")
		}
		addresses, containers = append(addresses, ip), append(containers, id)
	}
	host := func(ctx context.Context, args ...string) ([]byte, error) {
		return exec.CommandContext(ctx, o.nettool, args...).Output()
	}
	pod := func(ctx context.Context, args ...string) ([]byte, error) {
		reply, err := c.runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: containers[1],
			Cmd: append([]string{"/nettool"}, args...), Timeout: 60})
		if err == nil && reply.GetExitCode() != 0 {
			err = fmt.Errorf("exit code %d: %s", reply.GetExitCode(), reply.GetStderr())
		}
		return reply.GetStdout(), err
	}
	if err := answers(ctx, host, addresses[0]); err != nil {
		return err
	}
	for i := -o.warmup; o.more(i, o.n); i++ {
		for _, test := range []struct {
			metric string
			client func(context.Context, ...string) ([]byte, error)
			mode   string
		}{
			{"net_host_to_pod", host, "stream"}, {"net_pod_to_host", host, "reverse"}, {"net_host_pod_rr", host, "rr"},
			{"net_pod_to_pod", pod, "stream"}, {"net_pod_pod_rr", pod, "rr"},
		} {
			t, err := measureTraffic(ctx, test.client, test.mode, addresses[0], trafficSeconds)
			if err != nil {
				return fmt.Errorf("%s: %w", test.metric, err)
			}
			switch {
			case i < 0:
			case test.mode == "rr":
				r.add(test.metric, t.P50us)
			default:
				r.add(test.metric, t.MbitPerS)
			}
		}
	}
	return nil
}

func measureTraffic(ctx context.Context, client func(context.Context, ...string) ([]byte, error), mode, address string,
	seconds int) (traffic, error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var t traffic
	out, err := client(limited, mode, address, trafficPort, strconv.Itoa(seconds))
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return t, fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return t, err
	}
	return t, json.Unmarshal(out, &t)
}

// answers waits until the pod's server listens.
func answers(ctx context.Context, client func(context.Context, ...string) ([]byte, error), address string) error {
	deadline := time.Now().Add(connectLimit)
	for {
		_, err := measureTraffic(ctx, client, "rr", address, 1)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("the pod's server does not answer: %w", err)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// servingPod runs nettool's server in a pod.
func (c *client) servingPod(ctx context.Context) (*pod, string, error) {
	p, _, err := c.runPod(ctx)
	if err != nil {
		return nil, "", err
	}
	id, _, err := c.createContainer(ctx, p, "/nettool", "serve", "0.0.0.0", trafficPort)
	if err != nil {
		return nil, "", err
	}
	_, err = c.startContainer(ctx, id)
	return p, id, err
}

type pluginList struct {
	CNIVersion string            `json:"cniVersion"`
	Name       string            `json:"name"`
	Plugins    []json.RawMessage `json:"plugins"`
}

// runPlugins adds and deletes a network in namespaces of its own.
func runPlugins(ctx context.Context, o *options, r *record) error {
	if o.cniConf == "" || o.cniBin == "" {
		return errors.New("--cni-conf and --cni-bin are needed")
	}
	data, err := os.ReadFile(o.cniConf)
	if err != nil {
		return err
	}
	var list pluginList
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%s: %w", o.cniConf, err)
	}
	for i := -o.warmup; o.more(i, o.n); i++ {
		ms, err := addOnce(ctx, o, &list, fmt.Sprintf("bench-plugins-%d-%d", os.Getpid(), i+o.warmup))
		if err != nil {
			return err
		}
		if i >= 0 {
			r.add("cni_add", ms)
		}
	}
	return nil
}

func addOnce(ctx context.Context, o *options, list *pluginList, id string) (ms float64, err error) {
	if out, err := exec.CommandContext(ctx, "ip", "netns", "add", id).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("ip netns add: %w: %s", err, out)
	}
	defer func() {
		err = errors.Join(err, exec.Command("ip", "netns", "delete", id).Run())
	}()
	start := time.Now()
	result, err := chain(ctx, o, list, id, "ADD", nil)
	ms = float64(time.Since(start)) / float64(time.Millisecond)
	_, undo := chain(context.WithoutCancel(ctx), o, list, id, "DEL", result)
	return ms, errors.Join(err, undo)
}

// chain runs every plugin of the list: in order for ADD, each with the result of the one before; in
// reverse for DEL.
func chain(ctx context.Context, o *options, list *pluginList, id, command string, result json.RawMessage) (json.RawMessage, error) {
	for i := range list.Plugins {
		raw := list.Plugins[i]
		if command == "DEL" {
			raw = list.Plugins[len(list.Plugins)-1-i]
		}
		conf := map[string]json.RawMessage{}
		if err := json.Unmarshal(raw, &conf); err != nil {
			return nil, err
		}
		var kind string
		if err := json.Unmarshal(conf["type"], &kind); err != nil {
			return nil, err
		}
		conf["cniVersion"], _ = json.Marshal(list.CNIVersion)
		conf["name"], _ = json.Marshal(list.Name)
		delete(conf, "capabilities")
		if result != nil {
			conf["prevResult"] = result
		}
		input, err := json.Marshal(conf)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, filepath.Join(o.cniBin, kind))
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_NETNS=/run/netns/"+id,
			"CNI_IFNAME=eth0", "CNI_PATH="+o.cniBin)
		cmd.Stdin = bytes.NewReader(input)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("plugin %s %s: %w: %s%s", kind, command, err, strings.TrimSpace(out.String()), said.String())
		}
		if command == "ADD" {
			result = bytes.Clone(out.Bytes())
		}
	}
	return result, nil
}
