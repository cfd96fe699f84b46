// Package cgroup finds the systemd unit, container and Kubernetes pod that a cgroup path
// belongs to, and the path of a cgroup by its number.
package cgroup

import (
	"bytes"
	"slices"
	"strings"
)

// A Name is what a cgroup path says about the processes in it. Fields that it says nothing
// about are "". The user chooses all names below user@UID.service, including those of
// containers and pods. A container chooses all names inside it.
type Name struct {
	// Unit is the outermost service or scope of the host's manager, verbatim. In a
	// container that runs systemd, it is the outermost one of that systemd instead, unless
	// a user runs the container. The scope that a runtime creates for a container is not a
	// unit.
	Unit string
	// UserUnit is the outermost unit of a user's manager, if Unit is user@UID.service.
	UserUnit string
	// Container is the first 12 digits of a container's id, or the escaped name of a
	// container of LXC or systemd-nspawn. Of nested containers, it is the innermost one.
	Container string
	// Pod is the uid of a Kubernetes pod.
	Pod string
	// Manager reports that the cgroup is an init.scope: its processes hold sockets for the
	// units that they activate.
	Manager bool
}

// ParseFile parses the text of /proc/PID/cgroup. A hierarchy that names a container takes
// precedence, because on hosts that still use version 1, the unified hierarchy may have all
// containers in the service that runs them. After that comes the unified hierarchy, then
// systemd's own, then the others.
func ParseFile(text []byte) Name {
	var unified, systemd, other parsed
	for line := range bytes.Lines(text) {
		_, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte{':'})
		controllers, text, ok := bytes.Cut(rest, []byte{':'})
		switch {
		case !ok:
		case len(controllers) == 0:
			unified = parse(string(text))
		case string(controllers) == "name=systemd":
			systemd = parse(string(text))
		default:
			if p := parse(string(text)); other.name == (Name{}) || p.contained() && !other.contained() {
				other = p
			}
		}
	}
	paths := []parsed{unified, systemd, other}
	i := slices.IndexFunc(paths, parsed.contained)
	if i < 0 {
		i = slices.IndexFunc(paths, func(p parsed) bool { return p.name != Name{} })
	}
	if i < 0 {
		return Name{}
	}
	n := paths[i].name
	if u := slices.IndexFunc(paths, func(p parsed) bool { return p.user }); u >= 0 {
		// Some hosts give users cgroups of version 1 in which they can choose any name.
		n.Unit, n.UserUnit, n.Manager = paths[u].name.Unit, paths[u].name.UserUnit, paths[u].name.Manager
	}
	return n
}

// Path returns the path of a process's cgroup from the text of /proc/PID/cgroup: in the unified
// hierarchy or, on hosts that do not use it, in systemd's own, or in the first. It is a part of
// the text.
func Path(text []byte) (path []byte) {
	best := 0
	for line := range bytes.Lines(text) {
		_, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte{':'})
		controllers, name, ok := bytes.Cut(rest, []byte{':'})
		rank := 1
		switch {
		case !ok:
			continue
		case len(controllers) == 0 && string(name) != "/": // on hosts with version 1, the unified hierarchy may be unused
			rank = 3
		case string(controllers) == "name=systemd":
			rank = 2
		}
		if rank > best {
			path, best = name, rank
		}
	}
	return path
}

// ParsePath parses a path such as /system.slice/docker-ID.scope.
func ParsePath(text string) Name { return parse(text).name }

// parsed is the result of parsing one path.
type parsed struct {
	name Name
	user bool // a user can create cgroups with any name below name.Unit
}

func (p parsed) contained() bool { return p.name.Container != "" || p.name.Pod != "" }

func parse(text string) parsed {
	dirs := strings.Split(strings.TrimSuffix(text, " (deleted)"), "/")
	host, inside := dirs, []string(nil) // outside all containers, and inside the innermost
	container, pod := "", ""
	for i, dir := range dirs {
		if uid := podUID(dir); uid != "" {
			pod = uid
		}
		if id := containerID(dirs, i); id != "" {
			if container == "" {
				host = dirs[:i]
			}
			container, inside = id, dirs[i+1:]
		}
	}
	p := findUnits(host)
	if container != "" {
		below := findUnits(inside).name
		p.name.Manager = below.Manager
		switch {
		case below.Unit == "":
		case p.user:
			p.name.UserUnit = below.Unit
		default:
			p.name.Unit, p.name.UserUnit = below.Unit, below.UserUnit
		}
	}
	p.name.Container, p.name.Pod = container, pod
	return p
}

// findUnits finds the units in a path below the cgroup of a system manager.
func findUnits(dirs []string) parsed {
	var p parsed
	slice := false
	for i, dir := range dirs {
		unit := unescape(dir)
		switch {
		case isUserSlice(unit):
			slice, p.user = true, true
		case isUnit(unit, ".slice"):
			slice = true
		case unit == initScope:
			p.name.Manager = !slice
			return p
		case isUnit(unit, processUnits...):
			p.name.Unit = unit
			manager := isUserManager(unit)
			if p.user = p.user || manager; manager || isSession(unit) {
				p.name.UserUnit = outermostUnit(dirs[i+1:])
			}
			p.name.Manager = manager && i+1 < len(dirs) && dirs[i+1] == initScope
			return p
		}
	}
	return p
}

// outermostUnit returns the first unit in a path below the cgroup of a user manager.
func outermostUnit(dirs []string) string {
	for _, dir := range dirs {
		switch unit := unescape(dir); {
		case unit == initScope:
			return ""
		case isUnit(unit, processUnits...):
			return unit
		}
	}
	return ""
}
