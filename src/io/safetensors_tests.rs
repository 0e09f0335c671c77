//! Round trips, and damaged files: each must give an error in words, never a panic, a wrong tensor or a large
//! allocation.

use super::super::replace::tests::Scratch;
use super::*;

fn entry(name: &str, dtype: DType, shape: &[usize], first: u8) -> Entry<Vec<u8>> {
    let shape = Shape::new(shape);
    let len = shape.size() * dtype.size();
    let top = if dtype == DType::Bool { 1 } else { u8::MAX };
    let bytes = (0..len).map(|i| first.wrapping_add(i as u8) & top).collect();
    Entry { name: name.to_owned(), dtype, shape, bytes }
}

fn sample() -> Contents {
    Contents {
        tensors: vec![
            entry("mask", DType::Bool, &[3], 0),
            entry("net.0.weight", DType::F32, &[2, 3], 7),
            entry("empty", DType::I64, &[0, 4], 0),
            entry("step", DType::I64, &[], 200),
            entry("naïve \"名\"\n", DType::U8, &[5], 1),
            entry("double", DType::F64, &[1, 2], 9),
            entry("index", DType::I32, &[2], 3),
        ],
        metadata: vec![("z".to_owned(), "last \u{1F600}".to_owned()), ("a".to_owned(), String::new())],
    }
}

fn to_bytes(contents: &Contents) -> Vec<u8> {
    let (header, order) = lay_out(&contents.tensors, &contents.metadata).unwrap();
    let header = header.encode();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    for index in order {
        file.extend(&contents.tensors[index].bytes);
    }
    file
}

fn from_bytes(file: &[u8]) -> Result<Contents> {
    parse(file, file.len() as u64)
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// The message of the error that a file with this header and `data` zero bytes gives.
fn refusal(header: &str, data: usize) -> String {
    let error = from_bytes(&with_header(header, data)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format, "{error}");
    error.message().to_owned()
}

#[test]
fn a_file_returns_what_was_written_in_its_order() {
    let scratch = Scratch::new("round-trip");
    let path = scratch.0.join("a.safetensors");
    write(&path, &sample().tensors, &sample().metadata).unwrap();
    assert_eq!(read(&path).unwrap(), sample());
    assert_eq!(std::fs::read(&path).unwrap(), to_bytes(&sample()));
    write::<Vec<u8>>(&path, &[], &[]).unwrap();
    assert_eq!(read(&path).unwrap(), Contents::default());
    assert_eq!(scratch.names(), ["a.safetensors"]);
}

#[test]
fn every_tensor_is_aligned() {
    let (header, _) = lay_out(&sample().tensors, &sample().metadata).unwrap();
    assert_eq!(header.encode().len() % 8, 0);
    for tensor in header.tensors {
        assert_eq!(tensor.range.start % tensor.dtype.size(), 0, "{}", tensor.name);
    }
}

#[test]
fn every_truncation_is_refused() {
    let file = to_bytes(&sample());
    for len in 0..file.len() {
        assert_eq!(from_bytes(&file[..len]).unwrap_err().kind(), ErrorKind::Format, "{len} of {} bytes", file.len());
    }
    let mut longer = file;
    longer.push(0);
    assert!(from_bytes(&longer).unwrap_err().message().contains("follow the header"));
}

/// What a file with any one wrong byte may give: an error, or tensors that hold together.
fn check_whole(outcome: Result<Contents>) {
    match outcome {
        Ok(contents) => {
            for tensor in contents.tensors {
                assert_eq!(tensor.bytes.len(), tensor.shape.size() * tensor.dtype.size());
            }
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{error}");
            assert!(error.message().len() < 600, "{error}");
        }
    }
}

#[test]
fn every_wrong_byte_of_the_header_is_survived() {
    let file = to_bytes(&sample());
    let header_len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    for position in 0..8 + header_len {
        let mut damaged = file.clone();
        for value in 0..=u8::MAX {
            damaged[position] = value;
            check_whole(from_bytes(&damaged));
        }
    }
}

#[test]
fn random_damage_is_survived() {
    let file = to_bytes(&sample());
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let mut damaged = file.clone();
        for _ in 0..1 + random(4) {
            let (at, other) = (random(damaged.len()), random(damaged.len()));
            match random(3) {
                0 => damaged[at] = random(256) as u8,
                1 => damaged.swap(at, other),
                _ => drop(damaged.remove(at)),
            }
        }
        check_whole(from_bytes(&damaged));
    }
}

#[test]
fn a_hostile_header_length_reserves_nothing() {
    for len in [9, 1 << 20, MAX_HEADER + 1, 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        let mut file = len.to_le_bytes().to_vec();
        file.extend(b"{}      ");
        assert!(from_bytes(&file).unwrap_err().message().contains(&len.to_string()));
    }
    // A header that really is as long as it says, and longer than is read: seen from its length alone.
    let long = parse((MAX_HEADER + 1).to_le_bytes().as_slice(), u64::MAX).unwrap_err();
    assert!(long.message().contains("at most"), "{long}");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_refused() {
    let file = to_bytes(&sample());
    let error = parse(&file[..file.len() - 3], file.len() as u64).unwrap_err();
    assert!(error.message().contains("shorter"), "{error}");
}

#[test]
fn what_is_not_a_header_is_named() {
    assert!(refusal("", 0).contains("start with"));
    assert!(refusal("[1]", 0).contains("start with"));
    assert!(refusal("{\"a\":", 0).contains("EOF"));
    assert!(refusal("{} x", 0).contains("trailing"));
    assert!(refusal("{\"a\":1}", 0).contains("\"a\": its entry is not a JSON object"));
    assert!(refusal("{\"__metadata__\":[]}", 0).contains("__metadata__ is not"));
    assert!(refusal("{\"__metadata__\":{\"k\":1}}", 0).contains("the value of \"k\" is not text"));
    let nested = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(refusal(&nested, 0).contains("recursion"));
    let many = format!("{{\"a\":[{}0]}}", "0,".repeat(10_000));
    assert!(refusal(&many, 0).contains("more than 32"));
    let mut latin = with_header("{\"xx\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0);
    latin[10..12].copy_from_slice(b"\xe9\xff");
    assert!(from_bytes(&latin).unwrap_err().message().contains("unicode"));
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    let tensor = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
    assert!(refusal(&format!("{{\"a\":{tensor},\"a\":{tensor}}}"), 0).contains("\"a\" comes twice"));
    assert!(refusal(&format!("{{\"a\":{tensor},\"\\u0061\":{tensor}}}"), 0).contains("\"a\" comes twice"));
    let field = "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
    assert!(refusal(field, 0).contains("\"dtype\" comes twice"));
    let twice = [entry("a", DType::U8, &[1], 0), entry("a", DType::U8, &[1], 0)];
    let error = write(Path::new("unused"), &twice, &[]).unwrap_err();
    assert_eq!((error.kind(), error.message().contains("comes twice")), (ErrorKind::Value, true));
    let reserved = write(Path::new("unused"), &[entry(METADATA, DType::U8, &[1], 0)], &[]).unwrap_err();
    assert_eq!(reserved.kind(), ErrorKind::Value);
}

#[test]
fn a_wrong_tensor_entry_is_named() {
    let of = |fields: &str, data| refusal(&format!("{{\"w\":{{{fields}}}}}"), data);
    let place = "\"data_offsets\":[0,4]";
    assert!(of("\"dtype\":\"F32\",\"shape\":[1]", 4).contains("\"w\": data_offsets is missing"));
    assert!(of(&format!("\"dtype\":\"F32\",{place}"), 4).contains("shape is missing"));
    assert!(of(&format!("\"shape\":[1],{place}"), 4).contains("dtype is missing"));
    assert!(of(&format!("\"dtype\":\"X9\",\"shape\":[1],{place}"), 4).contains("unknown dtype \"X9\""));
    assert!(of(&format!("\"dtype\":5,\"shape\":[1],{place}"), 4).contains("dtype is not text"));
    for size in ["-1", "1.5", "\"1\"", "null", "[1]", "99999999999999999999"] {
        assert!(of(&format!("\"dtype\":\"F32\",\"shape\":[{size}],{place}"), 4).contains("not a size"), "{size}");
    }
    for shape in ["9223372036854775807,9", "4294967296,4294967296,4294967296", "0,18446744073709551615,2"] {
        assert!(of(&format!("\"dtype\":\"F32\",\"shape\":[{shape}],{place}"), 4).contains("too many elements"));
    }
    assert!(of("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]", 4).contains("takes 8 bytes"));
    assert!(of("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]", 4).contains("4 to 0"));
    assert!(of("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]", 4).contains("not a pair"));
    assert!(of("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1", 4).contains("unknown field \"x\""));
    assert!(of("\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]", 2).contains("2 follow the header"));
    let mut two = with_header("{\"w\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    *two.last_mut().unwrap() = 2;
    assert!(from_bytes(&two).unwrap_err().message().contains("bytes above 1"));
}

#[test]
fn a_dtype_of_the_format_that_is_not_held_is_unsupported() {
    let header = "{\"w\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}}";
    let error = from_bytes(&with_header(header, 2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("BF16"), "{error}");
}

#[test]
fn tensors_must_fill_the_file_without_overlap() {
    let two = |first: &str, second: &str, data| {
        let entry = |at: &str| format!("{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[{at}]}}");
        refusal(&format!("{{\"a\":{},\"b\":{}}}", entry(first), entry(second)), data)
    };
    assert!(two("0,4", "2,6", 6).contains("\"b\" starts at byte 2, not 4: it overlaps"));
    assert!(two("0,4", "0,4", 4).contains("overlaps"));
    assert!(two("0,4", "6,10", 10).contains("hole"));
    assert!(two("4,8", "8,12", 12).contains("\"a\" starts at byte 4, not 0"));
    assert!(two("0,4", "4,8", 7).contains("truncated"));
    assert!(two("0,4", "4,8", 9).contains("9 follow the header"));
    assert!(two("0,4", "18446744073709551611,18446744073709551615", 8).contains("truncated"));
}

#[test]
fn a_message_names_the_file_and_the_act() {
    let scratch = Scratch::new("messages");
    let missing = scratch.0.join("missing.safetensors");
    let error = read(&missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().starts_with("load \""), "{error}");
    assert_eq!(read(&scratch.0).unwrap_err().kind(), ErrorKind::Io);
    let error = write(&missing.join("below"), &sample().tensors, &[]).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.message().starts_with("save \""), "{error}");
    assert!(scratch.names().is_empty());
}
