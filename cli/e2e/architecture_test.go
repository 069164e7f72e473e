package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "activerelay"

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath   string
	Dir          string
	Standard     bool
	GoFiles      []string
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

// rule forbids imports to the packages below one path. Names of the standard library are checked on direct imports, since
// the generator's runtime reaches net/http by itself; all others on everything that is linked.
type rule struct {
	packages string
	except   []string
	forbids  []string
	why      string
}

var (
	httpStack = []string{"github.com/labstack/echo/v4", "github.com/getkin/kin-openapi"}
	database  = []string{"gorm.io/gorm", "modernc.org/sqlite", "github.com/jackc/pgx/v5", module + "/migrations"}
)

func rules() []rule {
	pure := "shared rules do no I/O and read no clock"
	list := []rule{
		{packages: "api/client", forbids: append([]string{module + "/api/rest"}, httpStack...), why: "relayd and relayctl link the client and must stay light"},
		{packages: "api/rest", forbids: []string{module + "/api/client"}, why: "the server does not call itself"},
		{packages: "server/internal/store", except: []string{"server/internal/store/"}, forbids: []string{"=" + module + "/api", "github.com/labstack/echo/v4"}, why: "rows are not wire types"},
		{packages: "server/internal/httpapi", forbids: []string{module + "/api/client"}, why: "the server does not call itself"},
		{packages: "server", forbids: []string{module + "/relayd", module + "/cli"}, why: "three programs, one contract"},
		{packages: "relayd", forbids: append(append([]string{module + "/server", module + "/cli", module + "/api/rest"}, httpStack...), database...), why: "the edge links no database and no server code"},
		{packages: "relayd", forbids: []string{"github.com/labstack/echo/v4"}, why: "the edge is no web server"},
		{packages: "cli", except: []string{"cli/e2e", "cli/internal/opsgen"}, forbids: append(append([]string{module + "/server", module + "/relayd", module + "/api/rest"}, httpStack...), database...), why: "the command line reads the contract when it is built, not when it runs"},
		{packages: "relayd/internal/journal", forbids: []string{module + "/api", module + "/relayd"}, why: "the journal knows bytes, nothing of ours"},
		{packages: "relayd/internal/spool", forbids: []string{module + "/relayd/internal/outbox", module + "/relayd/internal/queue", module + "/relayd/internal/deliver"}, why: "the spool knows nothing about time, destinations or events"},
		{packages: "relayd/internal/outbox", forbids: []string{module + "/relayd/internal/spool", module + "/relayd/internal/queue"}, why: "each adds its part to a batch that the caller commits"},
		{packages: "relayd/internal/ledger", forbids: []string{module + "/relayd/internal/smtpd", module + "/relayd/internal/queue", module + "/relayd/internal/deliver", module + "/api/client"}, why: "the ledger counts; it sends nothing"},
		{packages: "relayd/internal/policysync", forbids: []string{module + "/relayd/internal/smtpd", module + "/relayd/internal/queue", module + "/relayd/internal/deliver"}, why: "policy flows into the session, not out of it"},
		{packages: "relayd/internal/queue", forbids: []string{module + "/relayd/internal/smtpd", module + "/relayd/internal/deliver"}, why: "the queue declares the interface that it calls"},
		{packages: "relayd/internal/smtpd", forbids: []string{module + "/relayd/internal/queue", module + "/relayd/internal/deliver"}, why: "a session is given a function that enqueues"},
	}
	for _, name := range []string{"quota", "policy", "admit", "reason", "mailaddr", "feedback", "verifier"} {
		list = append(list, rule{packages: "api/" + name, forbids: append([]string{"net/http", "os", "log/slog", "log", module + "/api/client", module + "/api/rest", module + "/server", module + "/relayd"}, append(database, httpStack...)...), why: pure})
	}
	return list
}

func TestArchitectureNoPackageImportsWhatItMustNotKnow(t *testing.T) {
	packages := list(t)
	for _, r := range rules() {
		matched := false
		for _, p := range packages {
			if !r.applies(p.ImportPath) {
				continue
			}
			matched = true
			for _, forbidden := range r.forbids {
				for _, dep := range reach(p, forbidden) {
					if under(dep, forbidden) {
						t.Errorf("%s must not import %s: %s (%s)", p.ImportPath, dep, r.why, "go list -deps shows the way")
					}
				}
			}
		}
		if !matched {
			t.Errorf("the rule for %q matches no package: mend the rule", r.packages)
		}
	}
}

func TestArchitectureHarnessesAreOnlyForTests(t *testing.T) {
	for _, p := range list(t) {
		for _, imported := range p.Imports {
			if harness(imported) && !harness(p.ImportPath) {
				t.Errorf("%s imports %s outside its tests", p.ImportPath, imported)
			}
		}
	}
}

func TestArchitectureEveryPackageHasExactlyOnePackageComment(t *testing.T) {
	for _, p := range list(t) {
		var documented []string
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil && !strings.HasPrefix(file.Doc.Text(), "Code generated") && !strings.HasSuffix(name, ".gen.go") {
				documented = append(documented, name)
			}
		}
		if len(p.GoFiles) > 0 && len(documented) != 1 {
			t.Errorf("%s has %d package comments (%v), want 1", p.ImportPath, len(documented), documented)
		}
	}
}

func TestArchitectureNoPackageIsNamedForNothing(t *testing.T) {
	for _, p := range list(t) {
		switch base := filepath.Base(p.ImportPath); base {
		case "util", "utils", "common", "types", "helpers", "core", "manager", "service", "misc":
			t.Errorf("%s: name the package for its idea", p.ImportPath)
		}
	}
}

// A clock, a logger or an exit in the middle of a package cannot be tested.
func TestArchitectureNoHiddenClockLoggerOrExit(t *testing.T) {
	for _, p := range list(t) {
		if harness(p.ImportPath) || strings.HasSuffix(p.ImportPath, "/opsgen") {
			continue
		}
		for _, name := range p.GoFiles {
			if strings.HasSuffix(name, ".gen.go") {
				continue
			}
			checkCalls(t, p, name)
		}
	}
}

func checkCalls(t *testing.T, p goPackage, name string) {
	t.Helper()
	isMain := strings.Contains(p.ImportPath, "/cmd/")
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pure := strings.HasPrefix(p.ImportPath, module+"/api/") && !under(p.ImportPath, module+"/api/client")
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || pkg.Obj != nil {
			return true
		}
		advice := map[string]string{
			"slog.Default": "take a *slog.Logger", "slog.SetDefault": "pass the logger", "log.Fatal": "return an error", "log.Printf": "take a *slog.Logger",
			"time.Sleep": "wait on a timer and the context",
		}
		if !isMain {
			advice["os.Exit"] = "return an exit code"
		}
		if pure {
			advice["time.Now"] = "take now as an argument"
		}
		if why, bad := advice[pkg.Name+"."+sel.Sel.Name]; bad {
			t.Errorf("%s calls %s.%s: %s", fset.Position(sel.Pos()), pkg.Name, sel.Sel.Name, why)
		}
		return true
	})
	for _, decl := range file.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok {
			if fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s: no init functions; build what is needed in Run", fset.Position(fn.Pos()))
			}
			if lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; lines > 80 {
				t.Errorf("%s: %s has %d lines, the limit is 80", fset.Position(fn.Pos()), fn.Name.Name, lines)
			}
		}
	}
	if lines := fset.Position(file.End()).Line; lines > 500 {
		t.Errorf("%s has %d lines, the limit is 500", filepath.Join(p.Dir, name), lines)
	}
}

func TestArchitectureTheTopLevelIsFixed(t *testing.T) {
	allowed := map[string]bool{"api": true, "server": true, "relayd": true, "cli": true, "migrations": true, "openapi.yaml": true, "go.mod": true, "go.sum": true, "Makefile": true, "README.md": true, "LICENSE": true, "bin": true}
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !allowed[entry.Name()] && !strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("%s does not belong at the top level", entry.Name())
		}
	}
}

var namedTest = regexp.MustCompile("`(Test[A-Za-z0-9]+)(…?)`")

// A README that points to a test which is gone, or has another name by now, proves nothing.
func TestArchitectureReadmesNameTestsThatExist(t *testing.T) {
	var tests []byte
	err := filepath.WalkDir(root(t), func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		tests = append(tests, text...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, readme := range []string{"README.md", "relayd/README.md", "server/README.md"} {
		text, err := os.ReadFile(filepath.Join(root(t), readme))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range namedTest.FindAllStringSubmatch(string(text), -1) {
			declared := "func " + name[1]
			if name[2] == "" {
				declared += "("
			}
			if !bytes.Contains(tests, []byte(declared)) {
				t.Errorf("%s names %s, which does not exist", readme, name[1])
			}
		}
	}
}

func (r rule) applies(path string) bool {
	for _, e := range r.except {
		if e == "" {
			continue
		}
		if strings.HasSuffix(e, "/") && strings.HasPrefix(path, module+"/"+e) || under(path, module+"/"+e) {
			return false
		}
	}
	return under(path, module+"/"+r.packages) && !harness(path)
}

func harness(path string) bool {
	for _, part := range strings.Split(path, "/") {
		if strings.HasSuffix(part, "test") && part != "test" {
			return true
		}
	}
	return under(path, module+"/cli/e2e")
}

// reach answers what a package can be blamed for: its own imports for the standard library, all it links for the rest.
func reach(p goPackage, forbidden string) []string {
	if !strings.Contains(strings.SplitN(forbidden, "/", 2)[0], ".") && !strings.HasPrefix(strings.TrimPrefix(forbidden, "="), module) {
		return p.Imports
	}
	return p.Deps
}

// under tells whether path is prefix or lies below it; a prefix that starts with "=" means that one package alone.
func under(path, prefix string) bool {
	if exact, ok := strings.CutPrefix(prefix, "="); ok {
		return path == exact
	}
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func list(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Standard,GoFiles,Imports,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
