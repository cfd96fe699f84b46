// Package sockwatch holds the configuration that the program falls back to.
package sockwatch

import _ "embed"

// ExampleConfig is config.example.toml.
//
//go:embed config.example.toml
var ExampleConfig string
