package changes

import "testing"

func TestGeneratedPartsOfKeysAreGeneralized(t *testing.T) {
	tests := []struct{ name, process, unit string }{
		{name: "nginx", process: "nginx", unit: "nginx"},
		{name: "php-fpm8.3", process: "php-fpm8.*", unit: "php-fpm8.*"},
		{name: "worker-12", process: "worker-*", unit: "worker-*"},
		{name: "12", process: "*", unit: "*"},
		{name: "k3s-server", process: "k3s-server", unit: "k3s-server"},
		{name: "app@7.service", process: "app@7.service", unit: "app@*.service"},
		{name: "app@.service", process: "app@.service", unit: "app@.service"},
		{name: "app@a@b.service", process: "app@a@b.service", unit: "app@*.service"},
		{name: "session-31.scope", process: "session-31.scope", unit: "session-*.scope"},
		{name: "run-u5.service", process: "run-u5.service", unit: "run-u*.service"},
		{name: "docker-0123456789abcdef.scope", process: "docker-*.scope", unit: "docker-*.scope"},
		{name: "job-1234567", process: "job-*", unit: "job-*"},
		{name: "abcdefa-x", process: "abcdefa-x", unit: "abcdefa-x"}, // only 7 digits
		{name: "x-DEADBEEF-y", process: "x-*-y", unit: "x-*-y"},
		{name: "pod5d41402a-bc4b-2a76-b971-9d911017c592-x", process: "po*-x", unit: "po*-x"},
		{name: "pod-5d41402a-bc4b-2a76-b971-9d911017c592-x", process: "pod-*-x", unit: "pod-*-x"},
		{name: "pod_5d41402a_bc4b_2a76_b971_9d911017c592", process: "pod_*", unit: "pod_*"},
		{name: "5d41402a-bc4b-2a76", process: "*-bc4b-2a*", unit: "*-bc4b-2a*"},
		{name: "", process: "", unit: ""},
	}
	for _, tt := range tests {
		got := Key{Process: tt.name, Unit: tt.name, UserUnit: tt.name, UID: 7, InContainer: true}.generalized()
		want := Key{Process: tt.process, Unit: tt.unit, UserUnit: tt.unit, UID: 7, InContainer: true}
		if got != want {
			t.Errorf("%q (-want +got)\n-%+v\n+%+v", tt.name, want, got)
		}
	}
}

func TestGeneratedNamespaceNames(t *testing.T) {
	for name, want := range map[string]bool{
		"":           false,
		"blue":       false,
		"vpn2":       false,
		"4026532281": true,
		"cni-5d41402a-bc4b-2a76-b971-9d911017c592": true,
		"1a2b3c4d5e6f": true,
		"ns-abcdef":    false,
	} {
		if got := generatedNetns(name); got != want {
			t.Errorf("%q: got %t, want %t", name, got, want)
		}
	}
}
