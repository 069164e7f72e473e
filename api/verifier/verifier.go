// Package verifier is what is kept of an SMTP password: an argon2id hash in the
// PHC string form, made by the control plane and checked by the edges.
//
//	$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>
//
// The verifier travels in policy documents, so that AUTH works while the control
// plane is away; the password itself is never stored. Parameters are read from
// the verifier, so that they can be raised for new passwords while old ones go
// on working; what would cost more than [MaxCost] is refused unread.
//
// One check takes about 25 ms and 20 MB with the default parameters. The caller
// bounds how many run at once, and checks [Decoy] for a user who does not exist,
// so that the answer takes as long as for one who does. Passwords are compared
// byte for byte: nothing is normalised.
package verifier

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost is what one check costs.
type Cost struct {
	// MemoryKiB is the memory that is filled, in KiB.
	MemoryKiB uint32
	// Passes is how often it is filled.
	Passes uint32
	// Lanes is how many parts are filled side by side.
	Lanes uint8
}

// DefaultCost is the cost of new verifiers: the first recommendation of the
// OWASP password storage guide for argon2id.
func DefaultCost() Cost { return Cost{MemoryKiB: 19 * 1024, Passes: 2, Lanes: 1} }

// MaxCost is the most that Verify spends on a verifier from elsewhere.
func MaxCost() Cost { return Cost{MemoryKiB: 256 * 1024, Passes: 16, Lanes: 8} }

const (
	saltBytes    = 16
	hashBytes    = 32
	maxTextBytes = 512
)

// The errors of Verify.
var (
	// ErrMismatch is a wrong password.
	ErrMismatch = errors.New("the password does not match")
	// ErrMalformed is a text that is no verifier, or one that costs too much.
	ErrMalformed = errors.New("not an argon2id verifier")
)

// Hash returns the verifier of a password. The salt is read from random, which
// is crypto/rand.Reader outside tests.
func Hash(password string, random io.Reader, cost Cost) (string, error) {
	if !cost.allowed() {
		return "", fmt.Errorf("hash password: cost %+v is not allowed", cost)
	}
	salt := make([]byte, saltBytes)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("hash password: read salt: %w", err)
	}
	hash := argon2.IDKey([]byte(password), salt, cost.Passes, cost.MemoryKiB, cost.Lanes, hashBytes)
	return encode(cost, salt, hash), nil
}

// Verify returns nil when the verifier was made from the password.
func Verify(text, password string) error {
	cost, salt, want, err := decode(text)
	if err != nil {
		return err
	}
	got := argon2.IDKey([]byte(password), salt, cost.Passes, cost.MemoryKiB, cost.Lanes, uint32(len(want)))
	if subtle.ConstantTimeCompare(got, want) != 1 {
		return ErrMismatch
	}
	return nil
}

// Decoy is a verifier of the default cost that no password matches in practice.
func Decoy() string {
	return encode(DefaultCost(), make([]byte, saltBytes), make([]byte, hashBytes))
}

func (c Cost) allowed() bool {
	most := MaxCost()
	// RFC 9106 3.1: at least eight blocks of 1 KiB for each lane.
	return c.Passes >= 1 && c.Passes <= most.Passes && c.Lanes >= 1 && c.Lanes <= most.Lanes &&
		c.MemoryKiB >= 8*uint32(c.Lanes) && c.MemoryKiB <= most.MemoryKiB
}

func encode(cost Cost, salt, hash []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		cost.MemoryKiB, cost.Passes, cost.Lanes, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

// decode accepts exactly what encode writes: one verifier has one spelling.
func decode(text string) (cost Cost, salt, hash []byte, err error) {
	parts := strings.Split(text, "$")
	if len(text) > maxTextBytes || len(parts) != 6 {
		return Cost{}, nil, nil, ErrMalformed
	}
	_, err = fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &cost.MemoryKiB, &cost.Passes, &cost.Lanes)
	if err != nil || !cost.allowed() {
		return Cost{}, nil, nil, ErrMalformed
	}
	if salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(salt) < 8 {
		return Cost{}, nil, nil, ErrMalformed
	}
	if hash, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(hash) < 16 {
		return Cost{}, nil, nil, ErrMalformed
	}
	if encode(cost, salt, hash) != text {
		return Cost{}, nil, nil, ErrMalformed
	}
	return cost, salt, hash, nil
}
