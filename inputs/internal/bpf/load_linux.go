//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// load loads the programs and maps that objects has fields for.
func load(pidNamespace uint32, objects any) error {
	spec, err := loadListeners()
	if err != nil {
		return fmt.Errorf("bpf: read the programs: %w", err)
	}
	if err := spec.Variables[listenersVarPidNamespace].Set(pidNamespace); err != nil {
		return fmt.Errorf("bpf: set the pid namespace: %w", err)
	}
	if err := spec.LoadAndAssign(objects, nil); err != nil {
		return explain(err)
	}
	return nil
}

// explain says what to do about an error of loading.
func explain(err error) error {
	refused := (*ebpf.VerifierError)(nil)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("bpf: the capabilities CAP_BPF and CAP_PERFMON are both needed "+
			"(systemd: the packaged drop-in bpf.conf; docker: --cap-add=BPF --cap-add=PERFMON; "+
			"elsewhere: setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep sockwatch): %w", unix.EPERM)
	case errors.As(err, &refused):
		return fmt.Errorf("bpf: the kernel refused a program: %w\n%s", err, strings.Join(refused.Log, "\n"))
	default:
		return fmt.Errorf("bpf: load the programs: %w", err)
	}
}
