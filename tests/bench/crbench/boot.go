// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// How long a machine takes to its agent's first answer: what casemated says of its own pods, and, as
// the measure that it is held against, a bare QEMU that boots the same kernel and initrd. The bare
// one is given what a pod's machine has (host/vmm/cmdline.c) but for network and sandboxing, which
// it does not need.

const (
	greetEvery = 20 * time.Millisecond
	bootLimit  = 60 * time.Second
)

// runClone starts pods and asks the runtime how long each one's machine took to answer.
func runClone(ctx context.Context, c *client, o *options, r *record) error {
	for i := -o.warmup; o.more(i, o.n); i++ {
		p, _, err := c.runPod(ctx)
		if err != nil {
			return err
		}
		ms, err := c.bootMilliseconds(ctx, p.id)
		if err != nil {
			return err
		}
		if i >= 0 {
			r.add("clone_agent", ms)
		}
		if _, err := c.removePod(ctx, p.id); err != nil {
			return err
		}
	}
	return nil
}

// machine is what casemated tells of a pod's machine in the verbose status; nil: not told.
type machine struct {
	BootMilliseconds *float64 `json:"bootMilliseconds"`
	MadeAhead        *bool    `json:"madeAhead"`
}

func (c *client) machine(ctx context.Context, id string) (machine, error) {
	var m machine
	reply, err := c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	for _, text := range reply.GetInfo() {
		// What is no JSON, or of another runtime, says nothing of it.
		_ = json.Unmarshal([]byte(text), &m)
	}
	return m, err
}

// madeAhead is 100 when the pod's machine was there before the pod, 0 when not: a share in per cent. An error:
// the runtime has no such thing.
func (c *client) madeAhead(ctx context.Context, id string) (float64, error) {
	m, err := c.machine(ctx, id)
	switch {
	case err != nil:
		return 0, err
	case m.MadeAhead == nil:
		return 0, errors.New("the runtime does not tell whether the machine was made ahead")
	case *m.MadeAhead:
		return 100, nil
	}
	return 0, nil
}

// bootMilliseconds is what the runtime tells of a machine's start until its agent answered.
func (c *client) bootMilliseconds(ctx context.Context, id string) (float64, error) {
	m, err := c.machine(ctx, id)
	if err != nil {
		return 0, err
	}
	if m.BootMilliseconds == nil {
		return 0, errors.New("the runtime does not tell how long the machine took to start")
	}
	return *m.BootMilliseconds, nil
}

// runColdBoot boots the guest in a QEMU of its own, again and again.
func runColdBoot(ctx context.Context, o *options, r *record) error {
	if o.qemu == "" || o.kernel == "" || o.initrd == "" {
		return errors.New("--qemu, --kernel and --initrd are needed")
	}
	for i := -o.warmup; o.more(i, o.n); i++ {
		ms, err := coldBoot(ctx, o)
		if err != nil {
			return err
		}
		if i >= 0 {
			r.add("cold_boot", ms)
		}
	}
	return nil
}

func bareMachine(o *options, socket string) []string {
	accel, cpu, extra := "tcg,tb-size=32", "max", " mitigations=off norandmaps"
	if o.accel == "kvm" {
		accel, cpu, extra = "kvm", "host", ""
	}
	return []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,hpet=off,usb=off,sata=off,smbus=off,vmport=off,graphics=off",
		"-accel", accel, "-cpu", cpu, "-smp", "1", "-m", "256M",
		"-kernel", o.kernel, "-initrd", o.initrd,
		"-append", "console=ttyS0 8250.nr_uarts=1 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on" + extra,
		"-chardev", "ringbuf,id=console,size=65536", "-device", "isa-serial,chardev=console",
		"-device", "virtio-scsi-pci,disable-legacy=on",
		"-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0,disable-legacy=on",
		"-device", "virtio-balloon-pci,free-page-reporting=on,disable-legacy=on", "-device", "vmgenid,guid=auto",
		"-chardev", "socket,id=agent,path=" + socket + ",server=on,wait=off",
		"-device", "virtio-serial-pci,id=serial0,max_ports=2,disable-legacy=on",
		"-device", "virtserialport,bus=serial0.0,nr=1,chardev=agent,name=org.casemate.agent.0"}
}

// coldBoot is the time from the start of QEMU's process to the agent's answer to the link greeting
// (proto/agent/PROTOCOL.md), in milliseconds.
func coldBoot(ctx context.Context, o *options) (float64, error) {
	dir, err := os.MkdirTemp("", "coldboot")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	limited, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	socket := filepath.Join(dir, "agent")
	cmd := exec.CommandContext(limited, o.qemu, bareMachine(o, socket)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr = &said
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = greet(limited, socket)
	took := float64(time.Since(start)) / float64(time.Millisecond)
	cancel()
	_ = cmd.Wait() // killed
	if err != nil {
		return 0, fmt.Errorf("cold boot: %w; QEMU said: %s", err, strings.TrimSpace(said.String()))
	}
	return took, nil
}

// greet connects to the agent's port and repeats the greeting until it is answered.
func greet(ctx context.Context, socket string) error {
	conn, err := dialUntil(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	digits := hex.EncodeToString(nonce)
	answer := []byte("CASEMATE-AGENT/1 " + digits + "\n")
	var heard []byte
	buffer := make([]byte, 4096)
	for ctx.Err() == nil {
		_ = conn.SetDeadline(time.Now().Add(greetEvery))
		// A port that nobody reads yet takes only so much; then the write's time is over, and the next
		// one goes on.
		if _, err := conn.Write([]byte("CASEMATE-LINK/1 " + digits + "\n")); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		n, err := conn.Read(buffer)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		heard = append(heard, buffer[:n]...)
		if bytes.Contains(heard, answer) {
			return nil
		}
	}
	return errors.New("the agent did not answer in time")
}

func dialUntil(ctx context.Context, socket string) (net.Conn, error) {
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(2 * time.Millisecond):
		}
	}
}
