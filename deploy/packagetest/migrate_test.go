package packagetest

import (
	"strings"
	"testing"
)

// startFormerUnit starts the program with the unit of sockwatch 0.1, which had
// DynamicUser=yes and was installed by hand.
func startFormerUnit(t *testing.T) {
	t.Helper()
	must(t, "dpkg-deb --fsys-tarfile /current.deb | tar xO ./usr/bin/sockwatch >/usr/local/bin/sockwatch; chmod 755 /usr/local/bin/sockwatch")
	write(t, "/etc/sockwatch/sockwatch.toml", "[[inputs.tcp_listen]]\n[[outputs.prometheus]]\nlisten = \"127.0.0.1:8088\"\n"+
		"[[outputs.influxdb]]\nurls = [\"http://127.0.0.1:1\"]\ndatabase = \"d\"\n")
	must(t, "cp /dynamicuser.service /etc/systemd/system/sockwatch.service; systemctl daemon-reload; systemctl start sockwatch")
	prints(t, "readlink /var/lib/sockwatch", "private/sockwatch")
	eventually(t, "ls /var/lib/private/sockwatch/influxdb", ".") // its queue has segments
	must(t, "touch /var/log/sockwatch/kept")
}

func TestStateOfTheFormerUnitIsKept(t *testing.T) {
	booted(t, "", formerFiles(t), func(t *testing.T) {
		startFormerUnit(t)
		queue := must(t, "ls /var/lib/private/sockwatch/influxdb")
		must(t, "rm /etc/systemd/system/sockwatch.service; systemctl daemon-reload") // the program runs on
		// systemd would move the state too when it starts the service, so this keeps it from starting.
		must(t, "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d")
		must(t, "dpkg --force-confold -i /current.deb; rm /usr/sbin/policy-rc.d")
		prints(t, "systemctl is-active sockwatch", "inactive")
		prints(t, "stat -c '%F %a %U:%G' /var/lib/sockwatch", "directory 700 sockwatch:sockwatch")
		prints(t, "stat -c '%F %U:%G' /var/log/sockwatch", "directory sockwatch:sockwatch")
		prints(t, "find /var/lib/sockwatch /var/log/sockwatch ! -user sockwatch", "")
		prints(t, "ls /var/lib/private/sockwatch /var/log/private/sockwatch 2>/dev/null", "")
		must(t, "test -e /var/log/sockwatch/kept")
		first := strings.Fields(queue)[0]
		must(t, "test -e /var/lib/sockwatch/influxdb/"+first)
		must(t, "systemctl start sockwatch")
		prints(t, "systemctl is-active sockwatch", "active")
		prints(t, "systemctl show --value -p DynamicUser sockwatch", "no")
		prints(t, "systemctl show --value -p FragmentPath sockwatch | grep -c ^/etc", "0")
		prints(t, "journalctl -u sockwatch -p warning -g 'state directory|permission denied' -o cat", "")
	})
}

// The operator's own unit stays in force and keeps its state, and the installation says so. Once
// the unit is removed, an upgrade moves the state, and the service runs on.
func TestUnitOfTheOperatorStaysInForce(t *testing.T) {
	booted(t, "", formerFiles(t), func(t *testing.T) {
		startFormerUnit(t)
		output := must(t, "dpkg --force-confold -i /current.deb")
		if !strings.Contains(output, "/etc/systemd/system/sockwatch.service takes precedence") {
			t.Errorf("the installation does not name the other unit:\n%s", output)
		}
		prints(t, "readlink /var/lib/sockwatch", "private/sockwatch")
		prints(t, "systemctl is-active sockwatch", "active")
		must(t, "rm /etc/systemd/system/sockwatch.service; systemctl daemon-reload") // the program runs on
		must(t, "dpkg --force-confold -i /current.deb")
		prints(t, "stat -c '%F %U:%G' /var/lib/sockwatch", "directory sockwatch:sockwatch")
		prints(t, "systemctl is-active sockwatch", "active")
		prints(t, "systemctl show --value -p DynamicUser sockwatch", "no")
	})
}

func formerFiles(t *testing.T) map[string]string {
	t.Helper()
	files := debs(t)
	if files != nil {
		files["dynamicuser.service"] = "testdata/dynamicuser.service"
	}
	return files
}
