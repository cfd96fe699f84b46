//go:build amd64 || arm64

package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/servertest"
	"sockwatch/agent/plugin/plugintest/soak"
)

// TestCommittedObjectIsOfThisSource compiles the programs as "go generate" does and compares
// them with the committed ones: every instruction and relocation, the maps, and the Go types.
func TestCommittedObjectIsOfThisSource(t *testing.T) {
	soak.Only(t, "starts clang, which takes two seconds of CPU")
	servertest.Binary(t, "clang-14")
	servertest.Binary(t, "llvm-strip-14")
	source, err := os.ReadFile("bpf.go")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^//go:generate (go run \S*/bpf2go)( .*)$`).FindSubmatch(source)
	if command == nil {
		t.Fatal("bpf.go has no go:generate line with bpf2go")
	}
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", string(command[1])+` -output-dir "$0"`+string(command[2]), dir)
	cmd.Env = append(os.Environ(), "GOPACKAGE=bpf")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command[0], err, out)
	}
	compiled, err := ebpf.LoadCollectionSpec(dir + "/listeners_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	committed, err := loadListeners()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(describe(compiled), describe(committed)); diff != "" {
		t.Errorf("\"go generate\" was not run since the source has changed (-source +committed):\n%s", diff)
	}
	code, err := os.ReadFile(dir + "/listeners_bpfel.go")
	if err != nil {
		t.Fatal(err)
	}
	committedCode, err := os.ReadFile("listeners_bpfel.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(code), string(committedCode)); diff != "" {
		t.Errorf("listeners_bpfel.go (-source +committed):\n%s", diff)
	}
}

// describe returns what the kernel is given, as text by program and map.
func describe(spec *ebpf.CollectionSpec) map[string][]string {
	d := make(map[string][]string)
	for name, p := range spec.Programs {
		lines := []string{fmt.Sprint(p.Type, " ", p.AttachType, " ", p.AttachTo, " ", p.License, " ", p.ByteOrder)}
		for _, instruction := range p.Instructions {
			line := fmt.Sprint(instruction)
			if relocation := btf.CORERelocationMetadata(&instruction); relocation != nil {
				line += " " + relocation.String()
			}
			lines = append(lines, line)
		}
		d["program "+name] = lines
	}
	for name, m := range spec.Maps {
		lines := []string{fmt.Sprint(m.Type, " ", m.KeySize, " ", m.ValueSize, " ", m.MaxEntries, " ", m.Flags)}
		for _, content := range m.Contents {
			lines = append(lines, fmt.Sprint(content.Key, " ", content.Value))
		}
		d["map "+name] = lines
	}
	return d
}
