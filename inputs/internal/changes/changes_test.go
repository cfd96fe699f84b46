package changes

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFirstSnapshotIsABaseline(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		hidden := h.listen("0.0.0.0:80", h.process("nginx"))
		hidden.status = Pending
		h.pass(2 * time.Minute)
		h.set(hidden, func(s *simSocket) { s.status = Known })
		h.pass(2 * time.Minute)
		h.wants()
	})
}

func TestDeployRestartsEachServiceOnce(t *testing.T) {
	night(t, func(h *simHost) {
		var sockets []*simSocket
		services := 300
		if h.crashes {
			services = 60
		}
		for i := range services {
			sockets = append(sockets, h.listen(fmt.Sprintf("0.0.0.0:%d", 1000+i), h.process("app")))
		}
		h.pass(time.Minute)
		var want []string
		for _, s := range sockets {
			h.close(s)
			h.sleep(time.Second, 0)
			h.scan() // meanwhile the port is closed
			h.listen(fmt.Sprintf("0.0.0.0:%d", s.at.Port), h.again(s.holders[0]))
			want = append(want, fmt.Sprintf("restarted 0.0.0.0:%d app", s.at.Port))
		}
		h.pass(5 * time.Minute)
		h.wants(want...)
	})
}

func TestRollingUpdateOfASharedPortIsOneRestart(t *testing.T) {
	night(t, func(h *simHost) {
		var old []*simSocket
		for range 4 {
			old = append(old, h.listen("0.0.0.0:443", h.process("haproxy")))
		}
		h.pass(time.Minute)
		for _, s := range old {
			h.listen("0.0.0.0:443", h.again(s.holders[0]))
			h.pass(30 * time.Second)
			h.close(s)
			h.pass(30 * time.Second)
		}
		h.pass(5 * time.Minute)
		events := h.wants("restarted 0.0.0.0:443 haproxy")
		hasFields(t, &events[0], "down_seconds", "0", "previous_exe", "/usr/sbin/haproxy", "exe_changed", "false")
	})
}

func TestRollingUpdateNamesTheProcessBeforeIt(t *testing.T) {
	night(t, func(h *simHost) {
		first := h.process("haproxy")
		s := h.listen("0.0.0.0:443", first)
		h.pass(time.Minute)
		second := h.again(first)
		second.exe = "/tmp/haproxy"
		h.listen("0.0.0.0:443", second)
		h.pass(2 * time.Minute)
		h.listen("0.0.0.0:443", h.again(second))
		h.pass(2 * time.Minute)
		h.close(s)
		h.pass(5 * time.Minute)
		events := h.wants("restarted 0.0.0.0:443 haproxy, another exe")
		hasFields(t, &events[0], "previous_pid", fmt.Sprint(first.pid), "previous_exe", "/usr/sbin/haproxy", "exe", "/tmp/haproxy")
	})
}

func TestWorkersThatComeAndGoCauseNoEvents(t *testing.T) {
	night(t, func(h *simHost) {
		master := h.process("postfix")
		s := h.listen("0.0.0.0:25", master)
		h.pass(time.Minute)
		for range 5 {
			worker := h.process("smtpd")
			h.set(s, func(s *simSocket) { s.hold(master, worker) })
			h.pass(time.Minute)
			h.set(s, func(s *simSocket) { s.hold(master) })
			h.pass(time.Minute)
		}
		h.wants()
	})
}

func TestPreforkedWorkersInheritFromTheirParent(t *testing.T) {
	night(t, func(h *simHost) {
		parent := h.process("apache2")
		s := h.listen("0.0.0.0:80", parent)
		h.pass(time.Minute)
		child := h.again(parent)
		h.set(s, func(s *simSocket) { s.hold(parent, child) })
		h.pass(time.Minute)
		h.set(s, func(s *simSocket) { s.hold(child) })
		h.pass(5 * time.Minute)
		h.wants()
	})
}

func TestOlderProcessThatIsHandedASocketIsAFurtherHolder(t *testing.T) {
	night(t, func(h *simHost) {
		older, owner := h.process("supervisor"), h.process("app")
		s := h.listen("0.0.0.0:80", owner)
		h.pass(time.Minute)
		h.set(s, func(s *simSocket) { s.hold(older, owner) })
		h.pass(time.Minute)
		h.wants()
		h.set(s, func(s *simSocket) { s.hold(older) }) // now it alone holds the socket of another
		h.pass(time.Minute)
		h.wants("owner_changed 0.0.0.0:80 supervisor after app, another exe")
	})
}

func TestSocketActivationIsOneOwner(t *testing.T) {
	night(t, func(h *simHost) {
		systemd := h.systemd()
		h.pass(time.Minute)
		s := h.listen("0.0.0.0:22", systemd)
		h.pass(time.Minute)
		h.wants("opened 0.0.0.0:22 systemd")
		sshd := h.process("sshd")
		h.set(s, func(s *simSocket) { s.hold(systemd, sshd) })
		h.pass(time.Minute)
		session := h.process("sshd-session")
		h.set(s, func(s *simSocket) { s.hold(systemd, sshd, session) })
		h.pass(time.Minute)
		h.set(s, func(s *simSocket) { s.hold(systemd) })
		h.pass(10 * time.Minute)
		h.wants()
		h.set(s, func(s *simSocket) { s.hold(systemd, h.again(sshd)) })
		h.pass(time.Minute)
		events := h.wants("restarted 0.0.0.0:22 sshd")
		hasFields(t, &events[0], "previous_pid", fmt.Sprint(sshd.pid), "down_seconds", "0", "exe_changed", "false")
		h.set(s, func(s *simSocket) { s.hold(systemd) })
		h.pass(time.Minute)
		h.close(s)
		h.pass(2 * time.Minute)
		h.wants("closed 0.0.0.0:22 sshd")
	})
}

func TestChildOfSystemdAboutToExecuteIsTheManager(t *testing.T) {
	night(t, func(h *simHost) {
		systemd, sshd := h.systemd(), h.process("sshd")
		s := h.listen("0.0.0.0:22", systemd, sshd)
		h.pass(time.Minute)
		before := h.again(sshd)
		before.name, before.exe = "(sshd)", "/usr/lib/systemd/systemd-executor"
		h.set(s, func(s *simSocket) { s.hold(systemd, before) })
		h.pass(20 * time.Second)
		h.wants()
		before.name, before.exe = "sshd", "/usr/sbin/sshd"
		h.changed = true
		h.pass(time.Minute)
		h.wants("restarted 0.0.0.0:22 sshd")
	})
}

func TestRestartOfASocketUnitIsARestart(t *testing.T) {
	night(t, func(h *simHost) {
		systemd, sshd := h.systemd(), h.process("sshd")
		s := h.listen("0.0.0.0:22", systemd, sshd)
		h.pass(time.Minute)
		h.close(s)
		s = h.listen("0.0.0.0:22", systemd)
		h.pass(2 * time.Minute)
		h.wants("restarted 0.0.0.0:22 systemd, another exe")
		h.set(s, func(s *simSocket) { s.hold(systemd, h.again(sshd)) })
		h.pass(2 * time.Minute)
		h.wants()
	})
}

func TestContainersOnRandomPortsOpenAndCloseOnceEach(t *testing.T) {
	night(t, func(h *simHost) {
		h.options.MaxKnown = 50
		h.tracker = New(h.options)
		h.pass(time.Minute)
		for i := range 200 {
			at := fmt.Sprintf("0.0.0.0:%d", 32768+i*7)
			proxy := h.process("docker-proxy")
			s := h.listen(at, proxy)
			h.pass(20 * time.Second)
			h.close(s)
			h.pass(2 * time.Minute)
			h.wants("opened "+at+" docker-proxy", "closed "+at+" docker-proxy")
		}
		if n := len(h.records); n != 50+2 { // the scan and the totals
			t.Errorf("%d records, want 52", n)
		}
	})
}

// TestAsManyAsPossibleAreRemembered: thousands may close in the same second.
func TestAsManyAsPossibleAreRemembered(t *testing.T) {
	night(t, func(h *simHost) {
		h.options.MaxKnown = 3
		h.tracker = New(h.options)
		h.pass(time.Minute)
		var want []string
		for _, opens := range [...]string{"opened opened opened opened opened", "opened opened returned returned returned"} {
			var sockets []*simSocket
			for i, kind := range strings.Fields(opens) {
				at := fmt.Sprintf("0.0.0.0:%d web", 8000+i)
				sockets = append(sockets, h.listen(strings.TrimSuffix(at, " web"), h.process("web")))
				want = append(want, kind+" "+at)
			}
			h.pass(20 * time.Second)
			for i, s := range sockets {
				h.close(s)
				want = append(want, fmt.Sprintf("closed 0.0.0.0:%d web", 8000+i))
			}
			h.pass(2 * time.Minute)
		}
		h.wants(want...)
	})
}

func TestRecreatedContainerIsRestarted(t *testing.T) {
	night(t, func(h *simHost) {
		h.namespaces = append(h.namespaces, Namespace{Name: "4026532281", View: "netlink"})
		nginx := h.process("nginx")
		nginx.unit, nginx.container = "docker.service", "0123456789ab"
		h.pass(time.Minute)
		s := h.listen("4026532281/0.0.0.0:80", nginx)
		h.pass(time.Minute)
		h.wants("opened 4026532281/0.0.0.0:80 nginx")
		h.close(s)
		h.namespaces[1].Name = "4026532999"
		h.pass(20 * time.Second)
		next := h.again(nginx)
		next.container = "ba9876543210"
		s = h.listen("4026532999/0.0.0.0:80", next)
		h.pass(5 * time.Minute)
		events := h.wants("restarted 4026532999/0.0.0.0:80 nginx")
		hasFields(t, &events[0], "down_seconds", "30", "previous_pid", fmt.Sprint(nginx.pid))

		// Namespaces that exist at the same time are different ones.
		second := h.listen("4026532281/0.0.0.0:80", h.again(next))
		h.pass(time.Minute)
		h.close(s)
		h.pass(5 * time.Minute)
		h.wants("opened 4026532281/0.0.0.0:80 nginx", "closed 4026532999/0.0.0.0:80 nginx")
		_ = second
	})
}

func TestRenamedNamespaceOrDeviceIsNotAnEvent(t *testing.T) {
	night(t, func(h *simHost) {
		h.namespaces = append(h.namespaces, Namespace{Name: "4026532281", View: "netlink"})
		s := h.listen("4026532281/0.0.0.0%eth0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.namespaces[1].Name = "blue"
		h.set(s, func(s *simSocket) { s.at.Netns = "blue" })
		h.pass(2 * time.Minute)
		h.set(s, func(s *simSocket) { s.at.Address = "0.0.0.0%lan0" })
		h.pass(2 * time.Minute)
		h.wants()
	})
}

func TestRebootWithSlowServicesIsSilent(t *testing.T) {
	night(t, func(h *simHost) {
		ports := []int{22, 80, 443, 5432}
		for _, port := range ports {
			h.listen(fmt.Sprintf("0.0.0.0:%d", port), h.process(fmt.Sprintf("service%d.x", port)))
		}
		h.pass(time.Minute)
		h.boot(2 * time.Minute)
		h.public = false // the network is not up yet
		for i, port := range ports {
			h.listen(fmt.Sprintf("0.0.0.0:%d", port), h.process(fmt.Sprintf("service%d.x", port)))
			h.pass(30 * time.Second)
			if h.public = i > 0; i == 1 {
				h.changed = true
			}
		}
		h.pass(10 * time.Minute)
		h.wants()
	})
}

func TestWhatABootDoesNotBringBackIsClosed(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.listen("0.0.0.0:81", h.process("nginx"))
		h.pass(time.Minute)
		h.boot(2 * time.Minute)
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.listen("0.0.0.0:81", h.process("apache2"))
		h.pass(10 * time.Second)
		first := h.now.Time
		h.wants("owner_changed 0.0.0.0:81 apache2 after nginx, another exe")
		h.pass(4 * time.Minute)
		h.wants()
		h.pass(2 * time.Minute)
		events := h.wants("closed 0.0.0.0:80 nginx")
		hasTime(t, &events[0], first)
		hasFields(t, &events[0], "while_down", "true", "window_seconds", "130")
	})
}

func TestLaptopThatSleepsIsSilent(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("0.0.0.0:22", h.process("sshd"))
		h.public = false
		h.pass(time.Minute)
		h.close(s)
		h.pass(10 * time.Second)
		h.sleep(9*time.Hour, 9*time.Hour)
		h.scan()
		h.listen("0.0.0.0:22", h.again(s.holders[0]))
		h.pass(5 * time.Minute)
		h.wants("restarted 0.0.0.0:22 sshd")
	})
}

func TestAddressesThatComeAndGoWithinSettleAreTheSame(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.pass(time.Minute)
		for range 5 { // from one Wi-Fi to the next
			h.public, h.changed = false, true
			h.pass(40 * time.Second)
			h.public, h.changed = true, true
			h.pass(40 * time.Second)
		}
		h.wants()
	})
}

func TestOwnersUnreadableForAWhileAreTheSame(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("0.0.0.0:22", h.process("sshd"))
		nobody := h.listen("0.0.0.0:80", h.process("nginx"))
		nobody.status = Unknown
		h.pass(time.Minute)
		for _, status := range []Status{Unknown, Known, Pending, Known, None, Known} {
			h.set(s, func(s *simSocket) { s.status = status })
			h.pass(2 * time.Minute)
		}
		h.set(nobody, func(s *simSocket) { s.status = Known })
		h.pass(2 * time.Minute)
		h.wants()
	})
}

func TestFailedScansHideNothing(t *testing.T) {
	night(t, func(h *simHost) {
		sshd := h.process("sshd")
		s := h.listen("0.0.0.0:22", sshd)
		h.pass(time.Minute)
		h.failing = true
		h.close(s)
		h.listen("0.0.0.0:22", h.again(sshd))
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(5 * time.Minute)
		h.failing = false
		h.pass(5 * time.Minute)
		events := h.wants("restarted 0.0.0.0:22 sshd", "opened 0.0.0.0:80 nginx")
		for i := range events {
			hasFields(t, &events[i], "window_seconds", "310")
		}
	})
}

func TestNamespaceThatFailsIsABaselineAfterwards(t *testing.T) {
	night(t, func(h *simHost) {
		h.namespaces = append(h.namespaces, Namespace{Name: "blue", View: "netlink"})
		s := h.listen("blue/0.0.0.0:22", h.process("sshd"))
		h.pass(time.Minute)
		h.namespaces[1].Failed = true
		h.close(s)
		h.pass(10 * time.Minute)
		h.wants()
		h.namespaces[1].Failed = false
		h.listen("blue/0.0.0.0:80", h.process("nginx"))
		h.pass(5 * time.Minute)
		h.wants()
		h.listen("blue/0.0.0.0:81", h.process("nginx"))
		h.pass(time.Minute)
		h.wants("opened blue/0.0.0.0:81 nginx")
	})
}

func TestNewNamespaceThatFailsAtFirstIsNotABaseline(t *testing.T) {
	night(t, func(h *simHost) {
		h.pass(time.Minute)
		h.namespaces = append(h.namespaces, Namespace{Name: "blue", View: "netlink", Failed: true})
		h.listen("blue/0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.namespaces[1].Failed, h.changed = false, true
		h.pass(time.Minute)
		h.wants("opened blue/0.0.0.0:80 nginx")
	})
}

func TestNamespaceThatFailsWhenAnOptionIncludesItIsABaseline(t *testing.T) {
	night(t, func(h *simHost) {
		h.pass(time.Minute)
		h.scope, h.namespaces = "all", append(h.namespaces, Namespace{Name: "blue", View: "netlink", Failed: true})
		h.listen("blue/0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.namespaces[1].Failed, h.changed = false, true
		h.pass(time.Minute)
		h.wants()
	})
}

func TestOtherBackEndIsABaseline(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.pass(time.Minute)
		h.namespaces[0].View = "procfs"
		h.closeAll()
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(5 * time.Minute)
		h.wants()
	})
}

func TestNamespacesThatAnOptionIncludesAreABaseline(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.pass(time.Minute)
		h.scope, h.namespaces = "all", append(h.namespaces, Namespace{Name: "blue", View: "netlink"})
		s := h.listen("blue/0.0.0.0:80", h.process("nginx"))
		h.pass(5 * time.Minute)
		h.wants()
		h.namespaces = append(h.namespaces, Namespace{Name: "red", View: "netlink"})
		red := h.listen("red/0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.wants("opened red/0.0.0.0:80 nginx") // the first scan of a new namespace is not a baseline
		h.scope, h.namespaces = "", h.namespaces[:1]
		h.close(s, red)
		h.pass(5 * time.Minute)
		h.wants()
	})
}

func TestClockThatJumpsIsSilent(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		s := h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(time.Minute)
		h.close(s)
		h.pass(10 * time.Second)
		for _, jump := range []time.Duration{24 * time.Hour, -48 * time.Hour} {
			h.now.Time = h.now.Time.Add(jump)
			h.pass(20 * time.Second)
		}
		h.wants()
		h.listen("0.0.0.0:80", h.again(s.holders[0]))
		h.pass(5 * time.Minute)
		events := h.wants("restarted 0.0.0.0:80 nginx")
		hasFields(t, &events[0], "down_seconds", "60", "window_seconds", "10")
	})
}

func TestCleanRestartOfTheAgentIsSilent(t *testing.T) {
	h := newSimHost(t)
	h.listen("0.0.0.0:22", h.process("sshd"))
	h.pass(time.Minute)
	h.stop()
	h.sleep(time.Hour, 0)
	h.restore()
	h.pass(5 * time.Minute)
	h.wants()
}

func TestHistoryThatIsEmptyIsABaselineAgain(t *testing.T) {
	h := newSimHost(t)
	h.pass(time.Minute)
	h.listen("0.0.0.0:22", h.process("sshd"))
	h.pass(time.Minute)
	h.wants("opened 0.0.0.0:22 sshd")
	clear(h.records) // as after damage, or in a clone of an image
	h.restore()
	h.listen("0.0.0.0:80", h.process("nginx"))
	h.pass(5 * time.Minute)
	h.wants()
}

func TestRenamedProcessIsTheSameOwner(t *testing.T) {
	night(t, func(h *simHost) {
		p := h.process("sh")
		s := h.listen("0.0.0.0:80", p)
		h.pass(time.Minute)
		p.name, p.exe = "java", "/usr/bin/java"
		h.changed = true
		h.pass(time.Minute)
		h.close(s)
		h.listen("0.0.0.0:80", p)
		h.pass(2 * time.Minute)
		h.wants("restarted 0.0.0.0:80 java")
	})
}

func TestPartOfASharedPortMayRestart(t *testing.T) {
	night(t, func(h *simHost) {
		web, api := h.process("web"), h.process("api")
		h.listen("0.0.0.0:80", web)
		s := h.listen("0.0.0.0:80", api)
		h.pass(time.Minute)
		h.close(s)
		h.pass(30 * time.Second)
		h.listen("0.0.0.0:80", h.again(api))
		h.pass(5 * time.Minute)
		h.wants()
	})
}

func TestAddressesThatCannotBeReadAreNotCompared(t *testing.T) {
	night(t, func(h *simHost) {
		h.listen("0.0.0.0:22", h.process("sshd"))
		h.pass(time.Minute)
		h.unreadable, h.changed = true, true
		h.pass(5 * time.Minute)
		h.listen("0.0.0.0:80", h.process("nginx"))
		h.pass(5 * time.Minute)
		h.wants("opened 0.0.0.0:80 nginx")
		h.unreadable, h.changed = false, true
		h.pass(5 * time.Minute)
		h.wants()
	})
}

func TestContainersAfterABootAreSilent(t *testing.T) {
	night(t, func(h *simHost) {
		h.namespaces = append(h.namespaces, Namespace{Name: "4026532281", View: "netlink"})
		nginx := h.process("nginx")
		nginx.container = "0123456789ab"
		h.listen("4026532281/0.0.0.0:80", nginx)
		h.pass(time.Minute)
		h.boot(time.Minute)
		h.namespaces = h.namespaces[:1]
		h.pass(time.Minute)
		h.namespaces = append(h.namespaces, Namespace{Name: "4026531999", View: "netlink"})
		s := h.listen("4026531999/0.0.0.0:80", h.again(nginx))
		h.pass(10 * time.Minute)
		h.wants()
		if firstSeen, _ := h.tracker.Times(s.at, s.id); firstSeen != 0 {
			t.Errorf("first seen %d of what was there at the beginning, want 0", firstSeen)
		}
	})
}

func TestSocketOnItsWayBetweenTwoProcessesKeepsItsOwner(t *testing.T) {
	night(t, func(h *simHost) {
		s := h.listen("0.0.0.0:80", h.process("app"))
		onItsWay := h.listen("0.0.0.0:81", h.process("app"))
		onItsWay.status = None // at the baseline
		h.pass(time.Minute)
		h.set(s, func(s *simSocket) { s.status = None })
		h.set(onItsWay, func(s *simSocket) { s.status = Known })
		h.pass(2 * time.Minute)
		h.set(s, func(s *simSocket) { s.status = Known; s.hold(h.again(s.holders[0])) })
		h.pass(5 * time.Minute)
		h.wants()
	})
}
