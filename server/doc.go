// Package server is the composition root of the control plane, relay-server: it opens the database and brings it to the
// schema of this build, makes what a first start needs, wires the API and the publisher of policies to it, serves, and
// drains when it is told to end. It decides nothing about mail: rules are in the packages that it puts together.
package server
