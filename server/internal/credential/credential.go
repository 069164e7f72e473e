// Package credential makes, reads and checks the bearer tokens of the API.
//
// A token is "rly_<kind>_" and then, without separators, 22 characters of id, 43 of secret and 6 of checksum, all in base
// 62. The kind lets secret scanners and people see what leaked; the checksum tells a mistyped token from a wrong one
// without a question to the database; the id finds the row, of which only the SHA-256 of the secret is compared, in
// constant time. The secret has 256 bits, so a slow hash would protect nothing.
//
// The package knows no database and no role: what a credential allows is its row's business.
package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"

	"github.com/oklog/ulid/v2"
)

// Kind is what a credential is for.
type Kind string

// The kinds.
const (
	Operator Kind = "op"
	Partner  Kind = "partner"
	Customer Kind = "customer"
	Edge     Kind = "edge"
	Join     Kind = "join"
)

// Lengths of the parts in characters, and of the secret in bytes.
const (
	idLength       = 22
	secretLength   = 43
	checksumLength = 6
	secretBytes    = 32

	prefix = "rly_"
)

// ErrMalformed means that a text is no token, or one that was mistyped.
var ErrMalformed = errors.New("malformed token")

// Secret is a secret that was presented or has just been made.
type Secret [secretBytes]byte

// Hash returns what is stored of a secret.
func (s Secret) Hash() []byte {
	sum := sha256.Sum256(s[:])
	return sum[:]
}

// String keeps secrets out of logs.
func (Secret) String() string { return "[secret]" }

// Credential is a token taken apart.
type Credential struct {
	Kind Kind
	// ID is the public part; with a prefix it is the id of the row.
	ID     ulid.ULID
	Secret Secret
}

// New makes a credential with a fresh secret.
func New(kind Kind, id ulid.ULID) Credential {
	c := Credential{Kind: kind, ID: id}
	_, _ = rand.Read(c.Secret[:]) // never fails: crypto/rand.Read aborts the program instead
	return c
}

// Token returns the text that the holder presents.
func (c Credential) Token() string {
	body := prefix + string(c.Kind) + "_" + encode(c.ID[:], idLength) + encode(c.Secret[:], secretLength)
	return body + checksum(body)
}

// Parse takes a token apart. It does not know whether the token is good.
func Parse(token string) (Credential, error) {
	rest, found := strings.CutPrefix(token, prefix)
	kind, body, separated := strings.Cut(rest, "_")
	if !found || !separated || !known(Kind(kind)) || len(body) != idLength+secretLength+checksumLength {
		return Credential{}, ErrMalformed
	}
	signed := token[:len(token)-checksumLength]
	if checksum(signed) != token[len(token)-checksumLength:] {
		return Credential{}, ErrMalformed
	}
	c := Credential{Kind: Kind(kind)}
	if !decode(c.ID[:], body[:idLength]) || !decode(c.Secret[:], body[idLength:idLength+secretLength]) {
		return Credential{}, ErrMalformed
	}
	return c, nil
}

func known(kind Kind) bool {
	switch kind {
	case Operator, Partner, Customer, Edge, Join:
		return true
	}
	return false
}

// Matches compares the secret with stored hashes in constant time. It looks at every hash, so that it does not tell
// which one matched. Call it with no hash, or nil ones, for an id that is unknown: it costs the same.
func (c Credential) Matches(hashes ...[]byte) bool {
	presented := c.Secret.Hash()
	matches := subtle.ConstantTimeCompare(presented, make([]byte, sha256.Size))
	for _, hash := range hashes {
		matches |= subtle.ConstantTimeCompare(presented, hash)
	}
	return matches == 1
}

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// encode writes b as a number in base 62, filled with zeros to length.
func encode(b []byte, length int) string {
	n, base, digit := new(big.Int).SetBytes(b), big.NewInt(int64(len(alphabet))), new(big.Int)
	out := make([]byte, length)
	for i := length - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		out[i] = alphabet[digit.Int64()]
	}
	return string(out)
}

// decode is the reverse of encode; it reports whether text was one that encode can write.
func decode(out []byte, text string) bool {
	n, base := new(big.Int), big.NewInt(int64(len(alphabet)))
	for i := range len(text) {
		digit := strings.IndexByte(alphabet, text[i])
		if digit < 0 {
			return false
		}
		n.Add(n.Mul(n, base), big.NewInt(int64(digit)))
	}
	if n.BitLen() > 8*len(out) {
		return false
	}
	n.FillBytes(out)
	return true
}

func checksum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	return encode([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, checksumLength)
}
