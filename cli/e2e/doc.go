// Package e2e holds the acceptance tests of the whole system: the three programs as processes of their own, real mail servers
// around them, and the rules that hold the tree together (architecture_test.go).
package e2e
