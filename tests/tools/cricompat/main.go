// SPDX-License-Identifier: Apache-2.0

// Cricompat compares our CRI definition with the published ones.
//
//	protoc -I. --descriptor_set_out=FILE proto/cri/cri.proto && cricompat FILE
//
// The published side is what is compiled into the Go module k8s.io/cri-api, so it is what a kubelet
// and crictl speak:
//
//   - runtime.v1 of the version that go.mod pins must be equal to ours, in both directions;
//   - runtime.v1alpha2 of the last version that had it must be contained in ours, because the
//     daemon serves that package from the same descriptors: all of its services, messages and
//     fields, with no number given to another field since.
//
// How: a file descriptor is flattened into facts, a name for each thing and a text of what is true
// about it on the wire; comparing is then comparing two maps. Comments, order, JSON names and
// options without an effect on the wire are no facts. Every difference is printed; the exit status
// is 1 when there is one and 2 when the input cannot be read.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	runtimev1alpha2 "k8s.io/cri-api-v1alpha2/pkg/apis/runtime/v1alpha2"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// What is true on the wire about each thing of a file, by the thing's name without the package.
type facts map[string]string

type flattener struct {
	pkg   string
	facts facts
}

// Names of types are compared without their package: one side may be v1 and the other v1alpha2.
func (f *flattener) local(typeName string) string {
	return strings.TrimPrefix(typeName, "."+f.pkg+".")
}

func (f *flattener) enum(scope string, enum *descriptorpb.EnumDescriptorProto) {
	name := "enum " + scope + enum.GetName()
	f.facts[name] = "exists"
	for _, value := range enum.GetValue() {
		f.facts[name+" value "+value.GetName()] = fmt.Sprint(value.GetNumber())
	}
}

func (f *flattener) field(message string, proto3 bool, decl *descriptorpb.DescriptorProto,
	field *descriptorpb.FieldDescriptorProto) {
	kind := strings.ToLower(strings.TrimPrefix(field.GetType().String(), "TYPE_"))
	label := strings.ToLower(strings.TrimPrefix(field.GetLabel().String(), "LABEL_"))
	text := fmt.Sprintf("= %d, %s %s %s", field.GetNumber(), label, kind, f.local(field.GetTypeName()))
	if field.OneofIndex != nil && !field.GetProto3Optional() {
		text += " in oneof " + decl.GetOneofDecl()[field.GetOneofIndex()].GetName()
	}
	// One value of a packed field cannot be told from one that is not packed, but a list of them can.
	packable := field.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED &&
		field.GetType() != descriptorpb.FieldDescriptorProto_TYPE_MESSAGE &&
		field.GetType() != descriptorpb.FieldDescriptorProto_TYPE_STRING &&
		field.GetType() != descriptorpb.FieldDescriptorProto_TYPE_BYTES
	packed := proto3
	if field.GetOptions() != nil && field.GetOptions().Packed != nil {
		packed = field.GetOptions().GetPacked()
	}
	if packable && !packed {
		text += " not packed"
	}
	f.facts[message+" field "+field.GetName()] = strings.TrimSpace(text)
}

func (f *flattener) message(scope string, proto3 bool, decl *descriptorpb.DescriptorProto) {
	name := "message " + scope + decl.GetName()
	f.facts[name] = "exists"
	if decl.GetOptions().GetMapEntry() {
		f.facts[name] = "is a map entry"
	}
	for _, field := range decl.GetField() {
		f.field(name, proto3, decl, field)
	}
	for _, enum := range decl.GetEnumType() {
		f.enum(scope+decl.GetName()+".", enum)
	}
	for _, nested := range decl.GetNestedType() {
		f.message(scope+decl.GetName()+".", proto3, nested)
	}
}

func (f *flattener) service(service *descriptorpb.ServiceDescriptorProto) {
	name := "service " + service.GetName()
	stream := map[bool]string{true: "stream "}
	f.facts[name] = "exists"
	for _, method := range service.GetMethod() {
		f.facts[name+" rpc "+method.GetName()] = fmt.Sprintf("(%s%s) returns (%s%s)",
			stream[method.GetClientStreaming()], f.local(method.GetInputType()),
			stream[method.GetServerStreaming()], f.local(method.GetOutputType()))
	}
}

func flatten(file *descriptorpb.FileDescriptorProto) facts {
	f := flattener{pkg: file.GetPackage(), facts: facts{}}
	proto3 := file.GetSyntax() == "proto3"
	for _, service := range file.GetService() {
		f.service(service)
	}
	for _, enum := range file.GetEnumType() {
		f.enum("", enum)
	}
	for _, message := range file.GetMessageType() {
		f.message("", proto3, message)
	}
	return f.facts
}

// Adds to a message's facts which field has each number, so that a number that changed hands shows
// as such.
func byNumber(all facts) facts {
	numbers := facts{}
	for name, text := range all {
		if message, field, found := strings.Cut(name, " field "); found {
			number, _, _ := strings.Cut(strings.TrimPrefix(text, "= "), ",")
			numbers[message+" number "+number] = "is " + field
		}
	}
	return numbers
}

// Prints what `theirs` has and `ours` lacks or has differently, and returns how many such things
// there are.
func missing(title string, ours, theirs facts) int {
	count := 0
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		text, found := ours[name]
		if found && text == theirs[name] {
			continue
		}
		if !found {
			text = "(none)"
		}
		fmt.Printf("%s: %s: ours: %s; published: %s\n", title, name, text, theirs[name])
		count++
	}
	return count
}

// Prints what `ours` has and `theirs` does not know at all; what differs was printed by missing.
func unknown(title string, ours, theirs facts) int {
	count := 0
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if _, found := theirs[name]; !found {
			fmt.Printf("%s: %s: ours: %s; published: (none)\n", title, name, ours[name])
			count++
		}
	}
	return count
}

func readOurs(path string) (*descriptorpb.FileDescriptorProto, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(set.GetFile()) != 1 {
		return nil, fmt.Errorf("%s: holds %d files, want 1", path, len(set.GetFile()))
	}
	return set.GetFile()[0], nil
}

func publishedV1() *descriptorpb.FileDescriptorProto {
	message := &runtimev1.VersionRequest{}
	return protodesc.ToFileDescriptorProto(message.ProtoReflect().Descriptor().ParentFile())
}

// That version was generated by gogo, which keeps its descriptors as gzipped bytes in a registry of
// its own.
func publishedV1alpha2() (*descriptorpb.FileDescriptorProto, error) {
	zipped, _ := (&runtimev1alpha2.VersionRequest{}).Descriptor()
	reader, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(reader)
	if err != nil {
		return nil, err
	}
	file := &descriptorpb.FileDescriptorProto{}
	return file, proto.Unmarshal(data, file)
}

func run(path string) (int, error) {
	file, err := readOurs(path)
	if err != nil {
		return 0, err
	}
	old, err := publishedV1alpha2()
	if err != nil {
		return 0, fmt.Errorf("runtime.v1alpha2: %w", err)
	}
	current := publishedV1()
	for _, pair := range [][2]string{
		{file.GetPackage(), "runtime.v1"},
		{current.GetPackage(), "runtime.v1"},
		{old.GetPackage(), "runtime.v1alpha2"},
	} {
		if pair[0] != pair[1] {
			return 0, fmt.Errorf("package %s found where %s was expected", pair[0], pair[1])
		}
	}
	ours, v1, v1alpha2 := flatten(file), flatten(current), flatten(old)
	differences := missing("v1", ours, v1) + unknown("v1", ours, v1)
	if file.GetSyntax() != current.GetSyntax() {
		fmt.Printf("v1: syntax: ours: %s; published: %s\n", file.GetSyntax(), current.GetSyntax())
		differences++
	}
	differences += missing("v1alpha2", ours, v1alpha2)
	differences += missing("v1alpha2", byNumber(ours), byNumber(v1alpha2))
	fmt.Printf("%d differences; facts: ours %d, runtime.v1 %d, runtime.v1alpha2 %d\n",
		differences, len(ours), len(v1), len(v1alpha2))
	return differences, nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cricompat DESCRIPTOR_SET")
		os.Exit(2)
	}
	differences, err := run(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "cricompat:", err)
		os.Exit(2)
	}
	if differences > 0 {
		os.Exit(1)
	}
}
