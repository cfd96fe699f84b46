package cgroup

import (
	"slices"
	"strconv"
	"strings"

	"sockwatch/inputs/internal/escape"
)

// podUID returns the uid in "podUID" (the kubelet's cgroupfs driver) or
// "kubepods-burstable-podUID.slice" (its systemd driver, which writes "_" for "-"). The slices
// of a cgroupRoot may come before "kubepods". It returns "" if dir has neither form.
func podUID(dir string) string {
	dir, _, _ = strings.Cut(dir, ":") // SLICE:cri-containerd:ID
	uid, ok := strings.CutPrefix(dir, "pod")
	if slice, isSlice := strings.CutSuffix(dir, ".slice"); isSlice {
		i := strings.LastIndex(slice, "-pod")
		if i < 0 || !slices.Contains(strings.Split(slice[:i], "-"), "kubepods") {
			return ""
		}
		uid, ok = strings.ReplaceAll(slice[i+len("-pod"):], "_", "-"), true
	}
	if !ok || len(uid) < 32 || len(uid) > 36 || !onlyOf(uid, hexDigits+"-") {
		return ""
	}
	return uid
}

// containerID returns the id or name of the container whose root is the directory dirs[i] of
// a path, or "" if it is not the root of one.
func containerID(dirs []string, i int) string {
	dir, outer, inner := dirs[i], "", ""
	if i > 0 {
		outer = dirs[i-1]
	}
	if i+1 < len(dirs) {
		inner = dirs[i+1]
	}
	switch {
	case dir == "":
		return ""
	case outer == "lxc" || outer == "lxc.payload":
		return escape.Name([]byte(dir))
	case strings.HasPrefix(dir, "lxc.payload."):
		return escape.Name([]byte(strings.TrimPrefix(dir, "lxc.payload.")))
	case dir == "payload": // its sibling "supervisor" is systemd-nspawn itself
		return machineName(between(unescape(outer), "systemd-nspawn@", ".service"))
	case strings.HasPrefix(dir, "machine-"):
		return machine(between(dir, "machine-", ".scope"), inner)
	case slices.Contains(dirs[:i], "ecs"):
		if id, number, ok := strings.Cut(dir, "-"); ok && len(id) == 32 && onlyOf(id, hexDigits) && isNumber(number) {
			return id[:12]
		}
	}
	id := runtimeID(dir)
	if len(id) != 64 || !onlyOf(id, hexDigits) {
		return ""
	}
	return id[:12]
}

// runtimeID returns what may be a container id, as docker, containerd, CRI-O and podman
// write it. A conmon only watches a container, so it has none.
func runtimeID(dir string) string {
	if scope, ok := strings.CutSuffix(dir, ".scope"); ok { // docker-ID, cri-containerd-ID, crio-ID, libpod-ID
		i := strings.LastIndexByte(scope, '-')
		if i < 0 || strings.HasSuffix(scope[:i], "conmon") {
			return ""
		}
		return scope[i+1:]
	}
	if i := strings.LastIndexByte(dir, ':'); i >= 0 {
		return dir[i+1:] // SLICE:cri-containerd:ID
	}
	for _, prefix := range []string{"crio-", "libpod-payload-", "libpod-"} {
		if id, ok := strings.CutPrefix(dir, prefix); ok {
			return id
		}
	}
	return dir
}

// machine returns the name of a machine of systemd-machined if it is a container, or "" if it
// may be a virtual machine, whose scope has the same form of name. The scope of a container
// contains the payload of systemd-nspawn or the cgroups of a systemd, or its name begins with
// "lxc-" (libvirt).
func machine(escaped, inner string) string {
	name := machineName(escaped)
	if inner == "payload" || inner == initScope || isUnit(unescape(inner), ".slice") || strings.HasPrefix(name, "lxc-") {
		return name
	}
	return ""
}

// machineName decodes the name of a machine in the name of its unit, where systemd writes
// "-" as \x2d. The result is escaped by package escape.
func machineName(escaped string) string {
	var name []byte
	for i := 0; i < len(escaped); i++ {
		if strings.HasPrefix(escaped[i:], `\x`) && i+4 <= len(escaped) {
			if b, err := strconv.ParseUint(escaped[i+2:i+4], 16, 8); err == nil {
				name = append(name, byte(b))
				i += 3
				continue
			}
		}
		name = append(name, escaped[i])
	}
	return escape.Name(name)
}
