// Package cgroup tells which systemd unit, container and Kubernetes pod a cgroup
// path belongs to, and finds the path of a cgroup by its number.
package cgroup

import (
	"bytes"
	"strings"

	"sockwatch/inputs/internal/escape"
)

// A Name is whom the processes of a cgroup belong to; what is not known is "".
type Name struct {
	Unit      string // a unit of the host's systemd, verbatim
	UserUnit  string // a unit of a user's manager
	Container string // the first 12 digits of its id; of LXC the escaped name
	Pod       string // a Kubernetes pod's uid
	// Manager reports that the cgroup is an init.scope: its processes hold sockets for
	// the units that they activate.
	Manager bool
}

// ParseFile reads the text of /proc/PID/cgroup. Of its hierarchies the unified
// one speaks first, then systemd's own, then the others; but before them one that
// knows a container, since where version 1 is still in use the unified one may have
// all containers in the service that runs them.
func ParseFile(text []byte) Name {
	var unified, systemd, other Name
	for line := range bytes.Lines(text) {
		_, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte{':'})
		controllers, path, ok := bytes.Cut(rest, []byte{':'})
		switch {
		case !ok:
		case len(controllers) == 0:
			unified = ParsePath(string(path))
		case string(controllers) == "name=systemd":
			systemd = ParsePath(string(path))
		default:
			if n := ParsePath(string(path)); other == (Name{}) || n.contained() && !other.contained() {
				other = n
			}
		}
	}
	names := []Name{unified, systemd, other}
	for _, n := range names {
		if n.contained() {
			return n
		}
	}
	for _, n := range names {
		if n != (Name{}) {
			return n
		}
	}
	return Name{}
}

// contained tells whether a container or a pod is known.
func (n Name) contained() bool { return n.Container != "" || n.Pod != "" }

// ParsePath reads a path such as /system.slice/docker-ID.scope. Of several units
// the innermost counts, which is the one that holds the processes.
func ParsePath(path string) Name {
	var n Name
	outer := ""
	for dir := range strings.SplitSeq(strings.TrimSuffix(path, " (deleted)"), "/") {
		if unit := unescape(dir); isUnit(unit) {
			n.Unit = unit
		}
		if uid := podUID(dir); uid != "" {
			n.Pod = uid
		}
		if id := containerID(dir, outer); id != "" {
			n.Container = id
		}
		outer = dir
	}
	return n
}

// unescape takes off the "_" that systemd puts before a unit whose name the
// kernel might take for a file of its own.
func unescape(dir string) string { return strings.TrimPrefix(dir, "_") }

var unitTypes = []string{".service", ".scope", ".socket", ".mount", ".swap"}

// isUnit tells whether a directory's name is that of a unit that can hold
// processes. Of pid 1's own, init.scope, it says no: sockets that are activated
// by systemd carry it, and belong to others.
func isUnit(name string) bool {
	if len(name) > 255 || name == "init.scope" {
		return false
	}
	for _, suffix := range unitTypes {
		prefix, ok := strings.CutSuffix(name, suffix)
		if !ok {
			continue
		}
		return prefix != "" && prefix[0] != '@' && !strings.HasSuffix(prefix, "@") &&
			onlyOf(prefix, unitBytes)
	}
	return false
}

const unitBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"

func onlyOf(s, set string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(set, r) }) < 0
}

// podUID reads "podUID" (cgroupfs driver) and "kubepods-burstable-podUID.slice"
// (systemd driver, which writes "_" for "-"); "" where dir is neither.
func podUID(dir string) string {
	dir, _, _ = strings.Cut(dir, ":") // SLICE:cri-containerd:ID
	uid, ok := strings.CutPrefix(dir, "pod")
	if slice, isSlice := strings.CutSuffix(dir, ".slice"); isSlice && strings.HasPrefix(slice, "kubepods") {
		i := strings.LastIndex(slice, "-pod")
		if i < 0 {
			return ""
		}
		uid, ok = strings.ReplaceAll(slice[i+len("-pod"):], "_", "-"), true
	}
	if !ok || len(uid) < 32 || len(uid) > 36 || !onlyOf(uid, hexDigits+"-") {
		return ""
	}
	return uid
}

const hexDigits = "0123456789abcdef"

// containerID reads a directory's name, and that of the one around it, in the
// spellings of docker, containerd, CRI-O, podman and LXC.
func containerID(dir, outer string) string {
	switch {
	case outer == "lxc" || outer == "lxc.payload":
		return escape.Name([]byte(dir))
	case strings.HasPrefix(dir, "lxc.payload."):
		return escape.Name([]byte(strings.TrimPrefix(dir, "lxc.payload.")))
	}
	id := strings.TrimSuffix(dir, ".scope")
	if id != dir {
		// docker-ID, cri-containerd-ID, crio-ID, libpod-ID. A conmon only watches.
		i := strings.LastIndexByte(id, '-')
		if i < 0 || strings.HasSuffix(id[:i], "conmon") {
			return ""
		}
		id = id[i+1:]
	} else if i := strings.LastIndexByte(id, ':'); i >= 0 {
		id = id[i+1:] // SLICE:cri-containerd:ID
	} else if kind, rest, ok := strings.Cut(id, "-"); ok && (kind == "crio" || kind == "libpod") {
		id = rest
	}
	if len(id) != 64 || !onlyOf(id, hexDigits) {
		return ""
	}
	return id[:12]
}
