// SPDX-License-Identifier: Apache-2.0

// Cribad says wrong things to a CRI runtime and checks how it is told so.
//
//	cribad --socket PATH --pod ID [--container ID]
//
// Messages are given to grpc-go as bytes, so that they may be anything. Everything goes over one connection, which must
// never be closed by the other side: after each case Version is called on it, and dialling twice is a failure. The pod
// (and container) that exist must be there and unharmed at the end. One line for each case that went wrong; the exit
// status is 1 when there is one.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	messageLimit = 16 << 20
	callLimit    = 60 * time.Second
	runtimeV1    = "/runtime.v1.RuntimeService/"
	imageV1      = "/runtime.v1.ImageService/"
)

// rawCodec passes bytes through, both ways.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return nil, errors.New("not bytes")
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errors.New("not bytes")
	}
	*b = bytes.Clone(data)
	return nil
}

// tester is the one connection, and the count of what went wrong.
type tester struct {
	conn      *grpc.ClientConn
	dials     atomic.Int32
	cases     int
	failures  int
	pod       string
	container string
}

func newTester(socket, pod, container string) (*tester, error) {
	t := &tester{pod: pod, container: container}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		t.dials.Add(1)
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	conn, err := grpc.NewClient("passthrough:///casemated", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}),
			grpc.MaxCallSendMsgSize(64<<20), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	t.conn = conn
	return t, nil
}

func (t *tester) invoke(method string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	var reply []byte
	err := t.conn.Invoke(ctx, method, body, &reply)
	return reply, err
}

func (t *tester) fail(format string, args ...any) {
	t.failures++
	fmt.Printf("FAILED: "+format+"\n", args...)
}

// expect makes one call, which must end with one of the codes, and in words that name what is wrong where text is given.
func (t *tester) expect(name, method string, body []byte, text string, want ...codes.Code) {
	t.cases++
	_, err := t.invoke(method, body)
	got := status.Convert(err)
	if !slices.Contains(want, got.Code()) {
		t.fail("%s: %s answers %v (%q), not %v", name, method, got.Code(), got.Message(), want)
	} else if got.Code() != codes.OK && got.Code() != codes.Unimplemented && !strings.Contains(got.Message(), text) {
		t.fail("%s: %s says %q, which does not name %q", name, method, got.Message(), text)
	} else if got.Code() != codes.OK && got.Message() == "" {
		t.fail("%s: %s answers %v without a word", name, method, got.Code())
	}
	if _, err := t.invoke(runtimeV1+"Version", nil); err != nil {
		t.fail("%s: %s: the connection is of no use afterwards: %v", name, method, err)
	}
}

func marshal(m proto.Message) []byte {
	body, err := proto.Marshal(m)
	if err != nil {
		panic(err) // a message of ours that is no message
	}
	return body
}

// unary lists the full names of all unary methods, in both API versions.
func unary() []string {
	var list []string
	for _, service := range []grpc.ServiceDesc{cri.RuntimeService_ServiceDesc, cri.ImageService_ServiceDesc} {
		for _, m := range service.Methods {
			list = append(list, "/"+service.ServiceName+"/"+m.MethodName)
			list = append(list, "/"+strings.Replace(service.ServiceName, ".v1.", ".v1alpha2.", 1)+"/"+m.MethodName)
		}
	}
	return list
}

// malformed says things that are no protobuf to every method.
func (t *tester) malformed() {
	bodies := map[string][]byte{
		"a field that ends beyond the message": {0x0a, 0x7f, 'x'},
		"a number that does not end":           {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"a tag that is cut off":                {0xff},
		"a group that nobody opened":           {0x0c},
		"field number zero":                    {0x02, 0x00},
		"random bytes":                         {0x9f, 0x3c, 0x11, 0x00, 0xfe, 0xc8, 0x41, 0x02, 0x77},
	}
	for _, method := range unary() {
		for name, body := range bodies {
			t.expect(name, method, body, "", codes.InvalidArgument, codes.Unimplemented)
		}
	}
}

// nested is a RunPodSandboxRequest whose unknown field holds messages within messages, depth of them.
func nested(depth int) []byte {
	body := []byte{}
	for range depth {
		head := []byte{0x0a} // config, then its metadata and so on: field 1 of each
		head = appendVarint(head, uint64(len(body)))
		body = append(head, body...)
	}
	return body
}

func appendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// field is one length-delimited field.
func field(number uint64, value []byte) []byte {
	return append(appendVarint(appendVarint(nil, number<<3|2), uint64(len(value))), value...)
}

// odd says what is protobuf and must not be taken all the same.
func (t *tester) odd() {
	config := func(name []byte) []byte {
		metadata := slices.Concat(field(1, name), field(2, []byte("u")), field(3, []byte("ns")))
		return field(1, field(1, metadata))
	}
	run := runtimeV1 + "RunPodSandbox"
	t.expect("a name that is not UTF-8", run, config([]byte{'a', 0xff, 0xfe}), "", codes.InvalidArgument)
	t.expect("an overlong form", run, config([]byte{0xc0, 0xaf}), "", codes.InvalidArgument)
	t.expect("half a surrogate pair", run, config([]byte{0xed, 0xa0, 0x80}), "", codes.InvalidArgument)
	t.expect("a NUL in a name", run, config([]byte("a\x00b")), "", codes.InvalidArgument)
	t.expect("an id that is not UTF-8", runtimeV1+"PodSandboxStatus", field(1, []byte{0xc3, 0x28}), "",
		codes.InvalidArgument)
	label := field(1, field(6, slices.Concat(field(1, []byte("k")), field(2, []byte{0xff}))))
	t.expect("a label that is not UTF-8", run, label, "", codes.InvalidArgument)
	t.expect("a text that is a number", run, []byte{0x0a, 0x02, 0x10, 0x01}, "", codes.InvalidArgument)
	t.expect("messages within messages", run, nested(20000), "", codes.InvalidArgument, codes.ResourceExhausted)

	big := field(1, bytes.Repeat([]byte{'x'}, messageLimit+1))
	t.expect("more than 16 MiB", run, big, "", codes.ResourceExhausted)
	t.expect("much more than 16 MiB", imageV1+"PullImage", bytes.Repeat(big, 3), "", codes.ResourceExhausted)
	t.expect("just within 16 MiB", runtimeV1+"PodSandboxStatus", field(1, bytes.Repeat([]byte{'f'}, messageLimit-16)), "",
		codes.NotFound)

	t.expect("an unknown method", runtimeV1+"MakeCoffee", nil, "MakeCoffee", codes.Unimplemented)
	t.expect("an unknown service", "/runtime.v2.RuntimeService/Version", nil, "", codes.Unimplemented)
	t.expect("no method at all", "/x/", nil, "", codes.Unimplemented)
}

// unknownIDs asks for what is not there, by names of every kind.
func (t *tester) unknownIDs() {
	ids := []string{strings.Repeat("0123456789abcdef", 4), "nonsense", "../../etc", "", "%s%n", strings.Repeat("a", 4096),
		t.pod + "0", strings.ToUpper(t.pod)}
	config := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"},
		Image: &cri.ImageSpec{Image: "test.local/busybox:latest"}, Command: []string{"true"}}
	for _, id := range ids {
		name := fmt.Sprintf("the id %.20q", id)
		notFound := map[string]proto.Message{
			"PodSandboxStatus":   &cri.PodSandboxStatusRequest{PodSandboxId: id},
			"CreateContainer":    &cri.CreateContainerRequest{PodSandboxId: id, Config: config},
			"StartContainer":     &cri.StartContainerRequest{ContainerId: id},
			"ContainerStatus":    &cri.ContainerStatusRequest{ContainerId: id},
			"ExecSync":           &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}},
			"ReopenContainerLog": &cri.ReopenContainerLogRequest{ContainerId: id},
		}
		for method, request := range notFound {
			t.expect(name, runtimeV1+method, marshal(request), "", codes.NotFound)
		}
		// Not every release has these; the one that has not says so.
		later := map[string]proto.Message{
			"Exec":            &cri.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true},
			"Attach":          &cri.AttachRequest{ContainerId: id, Stdout: true},
			"PortForward":     &cri.PortForwardRequest{PodSandboxId: id, Port: []int32{80}},
			"ContainerStats":  &cri.ContainerStatsRequest{ContainerId: id},
			"PodSandboxStats": &cri.PodSandboxStatsRequest{PodSandboxId: id},
			"UpdateContainerResources": &cri.UpdateContainerResourcesRequest{ContainerId: id,
				Linux: &cri.LinuxContainerResources{CpuShares: 100}},
		}
		for method, request := range later {
			t.expect(name, runtimeV1+method, marshal(request), "", codes.NotFound, codes.Unimplemented)
		}
		// "This call is idempotent, and must not return an error if [it] has already been removed."
		gone := map[string]proto.Message{
			"StopPodSandbox":   &cri.StopPodSandboxRequest{PodSandboxId: id},
			"RemovePodSandbox": &cri.RemovePodSandboxRequest{PodSandboxId: id},
			"StopContainer":    &cri.StopContainerRequest{ContainerId: id},
			"RemoveContainer":  &cri.RemoveContainerRequest{ContainerId: id},
		}
		for method, request := range gone {
			t.expect(name, runtimeV1+method, marshal(request), "", codes.OK)
		}
	}
	spec := &cri.ImageSpec{Image: "nowhere.invalid/none:1"}
	t.expect("an unknown image", imageV1+"ImageStatus", marshal(&cri.ImageStatusRequest{Image: spec}), "", codes.OK)
	t.expect("an unknown image", imageV1+"RemoveImage", marshal(&cri.RemoveImageRequest{Image: spec}), "", codes.OK)
	for _, ref := range []string{"docker.io/UPPER/case", "a b", "../x", "x@sha256:short", strings.Repeat("y", 5000), ":", "x:/"} {
		t.expect(fmt.Sprintf("the reference %.20q", ref), imageV1+"PullImage",
			marshal(&cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}}), "", codes.InvalidArgument)
	}
	with := &cri.CreateContainerRequest{PodSandboxId: t.pod, Config: proto.CloneOf(config)}
	with.Config.Image = spec
	t.expect("a container of an image that is not there", runtimeV1+"CreateContainer", marshal(with), "none",
		codes.NotFound)
}

// missing leaves out what CRI requires, and gives what it does not allow.
func (t *tester) missing() {
	run := func(change func(*cri.PodSandboxConfig)) []byte {
		c := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "n", Uid: "u", Namespace: "ns"},
			Linux: &cri.LinuxPodSandboxConfig{}}
		change(c)
		return marshal(&cri.RunPodSandboxRequest{Config: c})
	}
	method := runtimeV1 + "RunPodSandbox"
	t.expect("no configuration", method, nil, "config", codes.InvalidArgument)
	t.expect("no metadata", method, run(func(c *cri.PodSandboxConfig) { c.Metadata = nil }), "metadata",
		codes.InvalidArgument)
	t.expect("no name", method, run(func(c *cri.PodSandboxConfig) { c.Metadata.Name = "" }), "name", codes.InvalidArgument)
	t.expect("a relative log folder", method, run(func(c *cri.PodSandboxConfig) { c.LogDirectory = "logs" }),
		"log_directory", codes.InvalidArgument)
	t.expect("an unknown handler", method, marshal(&cri.RunPodSandboxRequest{RuntimeHandler: "other",
		Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "n", Uid: "u", Namespace: "ns"}}}),
		"other", codes.InvalidArgument)

	create := func(change func(*cri.ContainerConfig)) []byte {
		c := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"},
			Image: &cri.ImageSpec{Image: "test.local/busybox:latest"}, Command: []string{"true"}}
		change(c)
		return marshal(&cri.CreateContainerRequest{PodSandboxId: t.pod, Config: c})
	}
	method = runtimeV1 + "CreateContainer"
	t.expect("no configuration", method, marshal(&cri.CreateContainerRequest{PodSandboxId: t.pod}), "config",
		codes.InvalidArgument)
	t.expect("no metadata", method, create(func(c *cri.ContainerConfig) { c.Metadata = nil }), "metadata",
		codes.InvalidArgument)
	t.expect("no image", method, create(func(c *cri.ContainerConfig) { c.Image = nil }), "image", codes.InvalidArgument)
	t.expect("a log path that climbs", method, create(func(c *cri.ContainerConfig) { c.LogPath = "../../x" }), "log_path",
		codes.InvalidArgument)
	if t.container != "" {
		t.expect("no command", runtimeV1+"ExecSync", marshal(&cri.ExecSyncRequest{ContainerId: t.container}), "cmd",
			codes.InvalidArgument)
		t.expect("time that runs backwards", runtimeV1+"ExecSync",
			marshal(&cri.ExecSyncRequest{ContainerId: t.container, Cmd: []string{"true"}, Timeout: -1}), "timeout",
			codes.InvalidArgument)
	}
	t.expect("no image", imageV1+"PullImage", nil, "image", codes.InvalidArgument)
	t.expect("no image", imageV1+"RemoveImage", nil, "image", codes.InvalidArgument)
	t.expect("no image", imageV1+"ImageStatus", nil, "image", codes.InvalidArgument)
}

// twice asks for a pod and a container that exist already.
func (t *tester) twice() {
	reply, err := t.invoke(runtimeV1+"PodSandboxStatus", marshal(&cri.PodSandboxStatusRequest{PodSandboxId: t.pod}))
	var pod cri.PodSandboxStatusResponse
	if err == nil {
		err = proto.Unmarshal(reply, &pod)
	}
	if err != nil {
		t.fail("the status of the pod: %v", err)
		return
	}
	same := &cri.PodSandboxConfig{Metadata: pod.Status.Metadata, Linux: &cri.LinuxPodSandboxConfig{}}
	t.expect("a second pod of the same name, uid and attempt", runtimeV1+"RunPodSandbox",
		marshal(&cri.RunPodSandboxRequest{Config: same}), "", codes.AlreadyExists)
	if t.container == "" {
		return
	}
	reply, err = t.invoke(runtimeV1+"ContainerStatus", marshal(&cri.ContainerStatusRequest{ContainerId: t.container}))
	var c cri.ContainerStatusResponse
	if err == nil {
		err = proto.Unmarshal(reply, &c)
	}
	if err != nil {
		t.fail("the status of the container: %v", err)
		return
	}
	again := &cri.ContainerConfig{Metadata: c.Status.Metadata, Image: c.Status.Image, Command: []string{"true"}}
	t.expect("a second container of the same name and attempt", runtimeV1+"CreateContainer",
		marshal(&cri.CreateContainerRequest{PodSandboxId: t.pod, Config: again}), "", codes.AlreadyExists)
	if c.Status.State == cri.ContainerState_CONTAINER_RUNNING {
		t.expect("starting what runs", runtimeV1+"StartContainer",
			marshal(&cri.StartContainerRequest{ContainerId: t.container}), "", codes.FailedPrecondition)
	}
}

// unharmed: what existed before is there, and nothing else is.
func (t *tester) unharmed() {
	reply, err := t.invoke(runtimeV1+"ListPodSandbox", nil)
	var pods cri.ListPodSandboxResponse
	if err == nil {
		err = proto.Unmarshal(reply, &pods)
	}
	if err != nil || len(pods.Items) != 1 || pods.Items[0].Id != t.pod ||
		pods.Items[0].State != cri.PodSandboxState_SANDBOX_READY {
		t.fail("the pod is not alone and ready: %v, %v", pods.Items, err)
	}
	reply, err = t.invoke(runtimeV1+"ListContainers", nil)
	var containers cri.ListContainersResponse
	if err == nil {
		err = proto.Unmarshal(reply, &containers)
	}
	ok := err == nil && len(containers.Containers) == 0
	if t.container != "" {
		ok = err == nil && len(containers.Containers) == 1 && containers.Containers[0].Id == t.container &&
			containers.Containers[0].State == cri.ContainerState_CONTAINER_RUNNING
	}
	if !ok {
		t.fail("the containers are others than before: %v, %v", containers.Containers, err)
	}
	if n := t.dials.Load(); n != 1 {
		t.fail("the connection was closed: dialled %d times", n)
	}
}

func main() {
	socket := flag.String("socket", "", "the runtime's CRI socket")
	pod := flag.String("pod", "", "id of the only pod, which is ready")
	container := flag.String("container", "", "id of the only container, which runs")
	flag.Parse()
	if *socket == "" || *pod == "" {
		flag.Usage()
		os.Exit(2)
	}
	t, err := newTester(*socket, *pod, *container)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cribad:", err)
		os.Exit(2)
	}
	defer t.conn.Close()
	t.malformed()
	t.odd()
	t.missing()
	t.unknownIDs()
	t.twice()
	t.unharmed()
	fmt.Printf("%d cases, %d failures, %d connection\n", t.cases, t.failures, t.dials.Load())
	if t.failures > 0 {
		os.Exit(1)
	}
}
