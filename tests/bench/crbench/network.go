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
	"strings"
	"time"
)

// What the plugins of the configuration take by themselves, called as the CNI specification says,
// without any runtime: the part of a pod's network that no runtime can save.

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
