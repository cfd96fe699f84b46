package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mayImport reports whether a package may import another one of this module. Imports point
// downwards: agent/metric imports nothing, the contracts import it, a plugin imports these
// and the internal packages of its side, nothing under agent/ imports a plugin, and only
// the program imports everything.
func mayImport(from, what string) bool {
	under := func(folder string) bool { return what == folder || strings.HasPrefix(what, folder+"/") }
	contracts := what == "agent/plugin" || what == "agent/metric"
	switch side, rest, _ := strings.Cut(from, "/"); {
	case from == "agent/metric":
		return false
	case from == "agent/plugin":
		return what == "agent/metric"
	case side == "inputs" || side == "outputs":
		return contracts || under(side+"/internal")
	case side == "agent" && rest != "config":
		return under("agent") && what != "agent/config"
	case side == "agent":
		return under("agent")
	default:
		return side == "cmd"
	}
}

// sourceFiles calls f for every Go file of the module that is not a test, with the folder
// of its package. It skips modules inside it.
func sourceFiles(t *testing.T, f func(dir, name string, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			if rel != "." && (err == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, name := path.Split(filepath.ToSlash(rel))
		f(strings.TrimSuffix(dir, "/"), name, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportRules(t *testing.T) {
	seen := make(map[string]bool)
	sourceFiles(t, func(dir, name string, file *ast.File) {
		seen[dir] = true
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Name != nil && spec.Name.Name == "_" && imported != "embed" {
				t.Errorf("%s/%s has a blank import of %s", dir, name, imported)
			}
			if imported == "unsafe" {
				t.Errorf("%s/%s imports unsafe", dir, name)
			}
			if ours, ok := strings.CutPrefix(imported, "sockwatch/"); ok && !mayImport(dir, ours) {
				t.Errorf("%s/%s must not import %s", dir, name, ours)
			}
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s/%s has an init", dir, name)
			}
		}
		if top, _, _ := strings.Cut(dir, "/"); !slices.Contains([]string{"cmd", "inputs", "outputs", "agent"}, top) && name != "embed.go" {
			t.Errorf("%s/%s: Go code lives under cmd/, inputs/, outputs/ and agent/", dir, name)
		}
	})
	for _, dir := range []string{"", "agent", "agent/metric", "agent/plugin", "cmd/sockwatch", "inputs/tcplisten", "outputs/stdout"} {
		if !seen[dir] {
			t.Errorf("no Go file seen in %q", dir)
		}
	}
}

func TestEveryPluginIsListed(t *testing.T) {
	folders := make(map[string]bool)
	sourceFiles(t, func(dir, name string, file *ast.File) {
		side, plugin, ok := strings.Cut(dir, "/")
		if ok && (side == "inputs" || side == "outputs") && !strings.HasPrefix(plugin, "internal/") {
			folders[dir] = true
		}
	})
	listed := make(map[string]bool)
	for _, p := range plugins() {
		listed[strings.TrimPrefix(reflect.TypeOf(p.Defaults()).Elem().PkgPath(), "sockwatch/")] = true
	}
	if diff := cmp.Diff(folders, listed); diff != "" {
		t.Errorf("plugins() (-folders +listed):\n%s", diff)
	}
}
