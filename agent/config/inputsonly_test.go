package config_test

import (
	"testing"

	"sockwatch/agent/config"
)

// A host that uses only the inputs accepts a configuration without outputs, but checks
// those that are present.
func TestInputsOnlyNeedsNoOutputs(t *testing.T) {
	host := fakeHost(nil)
	host.InputsOnly = true
	tests := []struct{ name, text, want string }{
		{"no outputs", "[[inputs.tcp_listen]]\n", ""},
		{"no inputs", "[[outputs.file]]\npath = \"/x\"\n", "s.toml: no inputs: at least one [[inputs.NAME]] is needed (known: tcp_listen)"},
		{"a wrong output", "[[inputs.tcp_listen]]\n[[outputs.file]]\npath = 1\n", "s.toml:3: outputs.file: path: must be a string: put it in quotes"},
	}
	for _, tt := range tests {
		_, err := config.Load([]config.File{{Name: "s.toml", Text: tt.text}}, fakePlugins(), host)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: error %q, want %q", tt.name, got, tt.want)
		}
	}
}
