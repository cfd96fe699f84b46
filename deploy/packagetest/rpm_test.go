package packagetest

import (
	"os"
	"testing"
)

// TestRPM installs by rpm --root, as an image builder does, and then goes on in the booted
// system. Debian's rpm knows none of the other packages, hence --nodeps.
func TestRPM(t *testing.T) {
	files := map[string]string{}
	if os.Getenv("SOCKWATCH_BOOTED") == "" {
		need(t, "rpm")
		build(t)
		files["current.rpm"] = one(t, built.current+"/*."+rpmArch+".rpm")
		files["previous.rpm"] = one(t, built.previous+"/*.rpm")
	}
	booted(t, `rpm --root "$R" --nodeps -i "$R/previous.rpm"`, files, func(t *testing.T) {
		prints(t, "systemctl is-enabled sockwatch.service", "enabled") // as the presets say: Debian's enable all
		prints(t, "systemctl is-enabled sockwatch.socket", "disabled")
		for _, want := range []string{
			"640 root:sockwatch /etc/sockwatch/sockwatch.toml",
			"750 root:sockwatch /etc/sockwatch/sockwatch.d",
			"750 root:sockwatch /etc/sockwatch/expect.d",
		} {
			prints(t, "stat -c '%a %U:%G %n' "+want[len("640 root:sockwatch "):], want)
		}
		must(t, "systemctl start sockwatch")
		if err := replaceIn("/etc/sockwatch/sockwatch.toml", "[agent]\n", "[agent]\n  interval = \"1s\"\n"); err != nil {
			t.Fatal(err)
		}
		pid := must(t, "systemctl show --value -p MainPID sockwatch")

		must(t, "rpm --nodeps -U /current.rpm")
		prints(t, "grep -c 'interval = \"1s\"' /etc/sockwatch/sockwatch.toml", "1")
		must(t, "test -e /etc/sockwatch/sockwatch.toml.rpmnew")
		prints(t, "systemctl is-active sockwatch", "active")
		if now := must(t, "systemctl show --value -p MainPID sockwatch"); now == pid {
			t.Error("the service was not restarted")
		}
		must(t, "systemctl stop sockwatch; rpm --nodeps -U --replacepkgs /current.rpm")
		prints(t, "systemctl is-active sockwatch", "inactive")

		must(t, "systemctl start sockwatch; rpm -e sockwatch")
		prints(t, "systemctl is-active sockwatch", "inactive")
		prints(t, "ls /etc/systemd/system/multi-user.target.wants | grep -c sockwatch", "0")
		must(t, "test -e /etc/sockwatch/sockwatch.toml.rpmsave; test -d /var/lib/sockwatch; test ! -e /usr/bin/sockwatch")
	})
}
