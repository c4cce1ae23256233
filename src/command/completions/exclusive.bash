# bash completion for exclusive. Works in bash 3.2, as macOS has it.
# Bash breaks words at : and = too, which occur in names and options. Words without a blank between them are joined
# again, and the part that bash already has is cut from each candidate.
_exclusive() {
  local rest=$COMP_LINE word line value cut="" i n=-1
  local -a words=()
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if [[ $n -lt 0 || $rest == [[:space:]]* || $word == "" ]]; then
      rest=${rest#"${rest%%[![:space:]]*}"}
      n=$((n + 1))
      words[n]=""
    fi
    cut=${words[n]}
    words[n]=${words[n]}$word
    rest=${rest#"$word"}
  done
  [[ $word == [:=] ]] && cut=${words[n]}
  for ((i = 1; i < n; i++)); do
    words[i]=${words[i]//[\\\"\']/}
  done
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      :files) compopt -o default 2>/dev/null ;;
      :directories) compopt -o dirnames 2>/dev/null ;;
      ":command "*)
        if declare -F _command_offset >/dev/null; then
          _command_offset "${line#:command }"
        elif ((COMP_CWORD == ${line#:command })); then
          COMPREPLY=($(compgen -c -- "$2"))
        else
          compopt -o default 2>/dev/null
        fi
        ;;
      *)
        value=${line%%$'\t'*}
        [[ $value == "${words[n]}"* ]] || continue
        printf -v value %q "${value#"$cut"}"
        COMPREPLY+=("$value")
        ;;
    esac
  done < <("${words[0]}" completion --answer "${words[@]:1}" 2>/dev/null)
}
complete -F _exclusive exclusive
